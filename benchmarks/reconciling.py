"""Requests from several processes over two servers that are killed in turn, counted on both sides.

Triton's own counters go with a server that is killed. So the model writes the number of each
request to a file before it answers, and each process says what became of each of its numbers: an
answer that is right, or the name of an error. Every number has to be in one of these; every answer
has to be in the model's files; and what the model saw twice was asked again of the other server, as
the first was killed between the two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from sml_kernel import serving
from sml_kernel.serving import local

_THREADS = 4  # of each process
_EXAMPLE = -1  # the number of what warms up and checks a server


def counting(
    arguments: dict[str, str], parameters: dict[str, Tensor], folder: Path
) -> Callable[[Tensor], Tensor]:
    """The model in a server: [n, 1] numbers to twice these and one, written down before."""
    path = Path(arguments["seen"]) / f"{os.getpid()}-{time.time_ns()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def answer(numbers: Tensor) -> Tensor:
        text = "".join(f"{each}\n" for each in numbers.flatten().tolist())
        os.write(descriptor, text.encode())
        return 2 * numbers + 1

    return answer


def reconcile(folder: Path, *, requests: int, processes: int) -> Iterator[dict[str, Any]]:
    """Rows ``kill`` as servers are killed and back, and at last one row ``reconciled``."""
    seen = folder / "seen"
    seen.mkdir()
    started = [_start(folder, f"server-{each}", seen) for each in range(2)]
    urls = [each.found.places[0].grpc for each in started]
    edges = np.linspace(0, requests, processes + 1).astype(int).tolist()
    own = [sys.executable, __file__, *urls]
    told = [folder / f"asked-{first}.json" for first in edges[:-1]]  # too long for a pipe
    asking = [
        subprocess.Popen([*own, str(path), str(first), str(last)])
        for path, (first, last) in zip(told, pairwise(edges), strict=True)
    ]
    kills = 0
    try:
        while any(each.poll() is None for each in asking):
            time.sleep(2)
            which = kills % 2
            yield {"kind": "kill", "server": which, "seen_before": _written(seen)}
            began = time.monotonic()
            started[which] = _again(started[which], folder, f"server-{which}-{kills}", seen)
            yield {"kind": "back", "server": which, "seconds": time.monotonic() - began}
            kills += 1
        said = [json.loads(path.read_text()) for path in told]
    finally:
        for each in asking:
            each.kill()
            each.wait()
        for server in started:
            server.close()
    yield {"kind": "reconciled", "kills": kills, **_reconciled(requests, said, seen)}


def _start(folder: Path, name: str, seen: Path) -> serving.Service:
    model = serving.Servable(
        "count",
        lambda numbers: 2 * numbers + 1,
        (np.full((1, 1), _EXAMPLE),),
        "reconciling:counting",
        {"seen": str(seen)},
        {},
    )
    return serving.start({"count": model}, folder=folder / name, progress=False)


def _again(service: serving.Service, folder: Path, name: str, seen: Path) -> serving.Service:
    """Kill a server as nothing else does, and start one where it was."""
    assert service.server is not None
    place = service.server.place
    os.kill(service.server.pid, signal.SIGKILL)
    service.server.process.wait()
    service.close()
    with mock.patch.object(local, "_free_place", return_value=place):
        return _start(folder, name, seen)


def _written(seen: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in seen.iterdir())


def _reconciled(requests: int, said: list[dict[str, Any]], seen: Path) -> dict[str, Any]:
    """Both sides' counts, and what does not fit: all of the last four ought to be 0."""
    lines = [line for path in seen.iterdir() for line in path.read_text().split()]
    model = Counter(map(int, lines))
    model.pop(_EXAMPLE, None)
    right = {number for each in said for number in each["right"]}
    answers = sum(len(each["right"]) for each in said)
    failed = {int(number): kind for each in said for number, kind in each["failed"].items()}
    retried = sum(each["counts"].get("retried", 0) for each in said)
    again = sum(model.values()) - len(model)
    return {
        "requests": requests,
        "answered": answers,
        "failed": dict(Counter(failed.values())),
        "retried": retried,
        "seen": sum(model.values()),
        "seen_again": again,
        "lost": requests - len(right) - len(failed),
        "answered_twice": answers - len(right) + len(right & set(failed)),
        "answered_unseen": len(right - set(model)),
        "seen_unasked": len(set(model) - right - set(failed)) + max(0, again - retried),
    }


def _ask(urls: list[str], first: int, last: int) -> dict[str, Any]:
    """One process: what became of each number from `first` to `last`, the last not among them."""
    right: list[int] = []
    failed: dict[int, str] = {}

    def one(number: int) -> None:
        try:
            answer = service.infer("count", torch.tensor([[number]]), transport="grpc")
        except Exception as error:  # whatever it is, it is counted
            failed[number] = type(error).__name__
            return
        if answer.tolist() == [[2 * number + 1]]:
            right.append(number)
        else:
            failed[number] = "wrong"

    with serving.connect(urls) as service, ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(one, range(first, last)):
            pass
        return {"right": right, "failed": failed, "counts": service.counts}


if __name__ == "__main__":
    asked = _ask(sys.argv[1:3], int(sys.argv[4]), int(sys.argv[5]))
    Path(sys.argv[3]).write_text(json.dumps(asked))
