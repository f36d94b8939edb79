"""Which transport is the fastest here, for requests like these: found by asking.

On one machine gRPC is faster than HTTP; over a wide area HTTP has been seen to be ten times as fast
(ResNet50 from Purdue to NERSC: 19 against 2 images a second). So it is measured, with the request
of the user, which a model answers as often as it is asked.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

_ROUNDS = 5
_SLOW_S = 0.5  # requests that take longer are not repeated


def measured(names: Sequence[str], send: Callable[[str], object]) -> dict[str, float]:
    """Seconds of a request over each transport: medians of some, in turn, after one each.

    Parameters
    ----------
    names
        Of the transports.
    send
        Sends the request over the one that is named. What it raises is raised.
    """
    first = {name: _seconds(send, name) for name in names}
    if max(first.values()) > _SLOW_S:
        return first
    times: dict[str, list[float]] = {name: [] for name in names}
    for each in range(_ROUNDS):
        for name in names if each % 2 else reversed(names):
            times[name].append(_seconds(send, name))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _seconds(send: Callable[[str], object], name: str) -> float:
    start = time.perf_counter()
    send(name)
    return time.perf_counter() - start
