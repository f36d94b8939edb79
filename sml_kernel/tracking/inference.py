"""From hits to tracks by the clock, stage by stage, with ACTS' Kalman filter beside the network.

Both take the same events in turn, pass by pass, so that a slow minute slows both alike. What is
on the clock: of the network all from the table of hits to the label of each (with the truth of
edges, which `build_graphs` looks up for training and inference would not); of ACTS its own
algorithms, without handing hits over and taking tracks back. Both inaccuracies favour ACTS.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from sml_kernel import records
from sml_kernel.tracking.cuts import Cuts
from sml_kernel.tracking.events import Event
from sml_kernel.tracking.graphs import build_graphs
from sml_kernel.tracking.kalman import KalmanSettings, reconstruct
from sml_kernel.tracking.scores import score_segments
from sml_kernel.tracking.tracks import join_segments

NETWORK, ACTS = "network", "ACTS"
#: Stages of the network's chain; those of ACTS: `sml_kernel.tracking.kalman.STAGES`.
STAGES = ("graph", "scores", "tracks")
#: The sum of a chain's stages, in tables only: records hold the stages.
TOTAL = "total"


@dataclass(frozen=True)
class InferenceTimes:
    """What `time_inference` found.

    Attributes
    ----------
    rows
        A row a stage and pass: ``chain`` (``"network"`` or ``"ACTS"``), ``stage``, ``seconds``,
        ``event``, ``hits``, ``edges`` (0 for ACTS), ``tracks``, ``repeat``, ``warm_up`` (whether
        it is one), ``pileup``, ``threads``, ``device``.
    labels
        Chain → for each event [N] the track of each hit, for `score_tracks`.
    """

    rows: list[dict[str, Any]]
    labels: dict[str, list[np.ndarray]]

    def table(self) -> pd.DataFrame:
        """A row a chain and stage, in order, ``total`` last; warm-up left out.

        ``median_s`` and the quartiles ``low_s``, ``high_s`` over events and repeats, ``passes``
        counted, mean ``hits`` and ``edges``.
        """
        frame = self._timed()
        whole = _whole(frame).assign(stage=TOTAL)
        groups = pd.concat([frame, whole]).groupby(["chain", "stage"], sort=False)
        table = groups.agg(
            median_s=("seconds", "median"),
            low_s=("seconds", lambda seconds: seconds.quantile(0.25)),
            high_s=("seconds", lambda seconds: seconds.quantile(0.75)),
            passes=("seconds", "size"),
            hits=("hits", "mean"),
            edges=("edges", "mean"),
        )
        return table.sort_index(level="chain", sort_remaining=False, ascending=False).reset_index()

    def ratio(self) -> dict[str, float]:
        """Seconds of ACTS over those of the network: median and quartiles of pass by pass.

        nan without ACTS. Above 1 the network is faster.
        """
        whole = _whole(self._timed()).pivot(
            index=["event", "repeat"], columns="chain", values="seconds"
        )
        each = whole[ACTS] / whole[NETWORK] if ACTS in whole else pd.Series([np.nan])
        quantiles = {"median": 0.5, "low": 0.25, "high": 0.75}
        return {name: float(each.quantile(share)) for name, share in quantiles.items()}

    def append(self, writer: records.Writer) -> None:
        """Record every pass: rows of kind ``inference``."""
        for row in self.rows:
            writer.append("inference", **row)

    def _timed(self) -> pd.DataFrame:
        frame = pd.DataFrame(self.rows)
        return frame[~frame.warm_up]


def time_inference(
    events: Sequence[Event],
    cuts: Cuts,
    model: nn.Module,
    *,
    kalman: KalmanSettings | None = None,
    cut: float = 0.5,
    method: str = "walkthrough",
    repeats: int = 3,
    warm_up: int = 1,
    threads: int = 1,
    pileup: int | None = None,
    progress: bool = False,
) -> InferenceTimes:
    """Time hits → graph → scores → tracks of each event, and ACTS on the same events.

    Parameters
    ----------
    events
        From `simulate`, others than those that `cuts` and `model` were made with.
    cuts
        From `learn_cuts`.
    model
        An `InteractionGNN`, on the device that it is to be timed on.
    kalman
        Settings of ACTS' Kalman filter, which runs on one thread; None: the network alone.
    cut, method
        See `join_segments`.
    repeats, warm_up
        Passes of each event that are timed, and that go before and are marked as warm-up.
    threads
        Of torch, for the network. Restored afterwards.
    pileup
        Of the events, for the record.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        No events, two of the same name, or a number below what makes sense.
    """
    if len({event.name for event in events}) != len(events) or not events:
        raise ValueError("events to time are one or more, each of a name of its own")
    if repeats < 1 or warm_up < 0 or threads < 1:
        raise ValueError("repeats and threads are at least 1, warm_up at least 0")
    rows: list[dict[str, Any]] = []
    labels: dict[str, list[np.ndarray]] = {}
    device = next(model.parameters()).device.type
    common = {"pileup": pileup, "threads": threads, "device": device}
    with _threads(threads), tqdm(total=len(events), unit="event", disable=not progress) as bar:
        for event in events:
            for number in range(warm_up + repeats):
                passed = [_through_network(event, cuts, model, cut, method)]
                passed += [_through_acts(event, kalman)] if kalman else []
                which = {**common, "repeat": number - warm_up, "warm_up": number < warm_up}
                rows += [row for each in passed for row in each.rows(event, which)]
            for each in passed:
                labels.setdefault(each.chain, []).append(each.labels)
            bar.update()
    return InferenceTimes(rows, labels)


@dataclass(frozen=True)
class _Passage:
    """One event through one chain."""

    chain: str
    labels: np.ndarray
    seconds: dict[str, float]
    edges: int

    def rows(self, event: Event, which: dict[str, Any]) -> list[dict[str, Any]]:
        """A row a stage; `which` pass it was is added to each."""
        found = {"edges": self.edges, "tracks": int(self.labels.max(initial=-1)) + 1}
        own = {"chain": self.chain, "event": event.name, "hits": len(event.hits), **found}
        apart = {"threads": 1, "device": "cpu"} if self.chain == ACTS else {}
        return [
            {"stage": stage, "seconds": seconds, **own, **which, **apart}
            for stage, seconds in self.seconds.items()
        ]


def _through_network(
    event: Event, cuts: Cuts, model: nn.Module, cut: float, method: str
) -> _Passage:
    clock = [time.perf_counter()]
    (graph,) = build_graphs(event, cuts)
    clock.append(time.perf_counter())
    scores = score_segments(model, graph)  # brings them back, so that a GPU has finished
    clock.append(time.perf_counter())
    labels = join_segments(graph, scores, cut=cut, method=method)
    clock.append(time.perf_counter())
    seconds = [end - start for start, end in pairwise(clock)]
    return _Passage(NETWORK, labels, dict(zip(STAGES, seconds, strict=True)), int(graph.num_edges))


def _through_acts(event: Event, settings: KalmanSettings) -> _Passage:
    found = reconstruct(event, settings)
    return _Passage(ACTS, found.tracks, found.seconds, 0)


def _whole(timed: pd.DataFrame) -> pd.DataFrame:
    """The sum over the stages of each pass."""
    by = ["chain", "event", "repeat"]
    rest = {"seconds": "sum", "hits": "first", "edges": "first"}
    return timed.groupby(by, sort=False, as_index=False).agg(rest)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
