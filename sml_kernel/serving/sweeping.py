"""Ask a model at different loads, and find where the time of a request goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.records.resume import open_or_start, under_way
from sml_kernel.serving.answers import fitting
from sml_kernel.serving.callers import Calls, Task, call, call_from_processes
from sml_kernel.serving.load import AXES, KIND, Load
from sml_kernel.serving.perf_analyzer import Analyzer, analyze, found_perf_analyzer
from sml_kernel.serving.statistics import Statistics, statistics, sum_of

if TYPE_CHECKING:
    from sml_kernel.records import Run
    from sml_kernel.serving.client import Service

#: Share of one core from which on a Python process is busy, and not the server waited for.
SATURATED = 0.85


@dataclass(frozen=True)
class _Point:
    transport: str
    concurrency: int
    rate: float
    repeat: int


def sweep(
    service: Service,
    name: str,
    inputs: Sequence[Any],
    *,
    concurrency: Sequence[int] = (1, 2, 4, 8, 16),
    rates: Sequence[float] = (),
    transports: Sequence[str] | None = None,
    duration_s: float = 2.0,
    repeats: int = 3,
    processes: int | None = None,
    direct: Callable[..., Any] | None = None,
    perf_analyzer: bool = False,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Load:
    """Ask a model at different loads, and find where the time of a request goes.

    Points take turns in each repeat, so that a slow minute slows all alike. A sweep that was
    interrupted goes on in its folder: what was measured is kept.

    Parameters
    ----------
    service
        From `serving.start` or `serving.connect`.
    name
        The model.
    inputs
        What is asked, one after another: each as for `Service.infer`.
    concurrency
        Requests under way at once, a point each (a closed loop: who is answered asks again).
    rates
        Requests a second that arrive at random moments, a point each (an open loop). A request's
        time counts from when it was due.
    transports
        Names; None is the first of the service.
    duration_s, repeats
        Of each point.
    processes
        That ask. None: one, and if it is busy itself (`SATURATED`) the point is measured again
        with two, then four, while there are cores for them; the last measurement counts, and says
        ``saturated`` if it still was.
    direct
        The model, called with the tensors of each input in this process, for comparison.
    perf_analyzer
        Measure each closed loop by Triton's own perf_analyzer too, right after it, for three times
        `duration_s`. `install_perf_analyzer` fetches it.
    folder
        Of the record; None makes one below ``runs``.
    seed
        Of the moments of an open loop.
    progress
        Show a bar.

    Returns
    -------
    Load

    Raises
    ------
    UnknownModelError, InputError, ServerGoneError
        As `Service.infer`, before anything is measured. Requests that fail later are counted.
    RecordError
        The folder holds another sweep.
    InstallError
        There is no perf_analyzer.
    """
    from tqdm.auto import tqdm

    served = service.describe(name)
    fields = [each.name for each in served.inputs]
    arrays = [dict(zip(fields, fitting(served, each), strict=True)) for each in inputs]
    if not arrays:
        raise ValueError("inputs is empty: give one at least")
    asked = {
        "name": name,
        "hash": served.hash,
        "concurrency": list(concurrency),
        "rates": list(rates),
        "transports": list(transports or list(service.transports)[:1]),
        "duration_s": duration_s,
        "repeats": repeats,
        "processes": processes,
        "inputs": len(arrays),
        "payload_bytes": float(np.mean([sum(x.nbytes for x in each.values()) for each in arrays])),
        "seed": seed,
    }
    analyzer = found_perf_analyzer() if perf_analyzer else None
    run = open_or_start(KIND, asked, folder)
    load, there, compared = Load(run), _there(run, KIND), _there(run, "perf_analyzer")
    planned = [each for repeat in range(repeats) for each in _planned(asked, repeat)]
    with (
        under_way(run, "load") as writer,
        tqdm(total=len(planned), disable=not progress, unit="point") as bar,
    ):
        for point in planned:
            if point not in there:
                writer.append(KIND, **_measure(service, asked, point, arrays))
            if analyzer and point.concurrency and point not in compared:
                row = _compared(analyzer, service, asked, point, arrays)
                writer.append("perf_analyzer", **row)
            bar.update()
        if direct is not None and load.direct().empty:
            for seconds in _called(direct, arrays, duration_s):
                writer.append("direct", seconds=seconds)
    return load


def _there(run: Run, kind: str) -> set[_Point]:
    """The points that have a row."""
    rows = run.rows(kind)
    columns = [*AXES, "repeat"]
    return {_Point(*each) for each in rows[columns].itertuples(index=False)} if len(rows) else set()


def _compared(
    analyzer: Analyzer,
    service: Service,
    asked: Mapping[str, Any],
    point: _Point,
    arrays: list[dict[str, np.ndarray]],
) -> dict[str, Any]:
    """The row of a closed loop by perf_analyzer."""
    found = analyze(
        analyzer,
        service,
        asked["name"],
        arrays,
        transport=point.transport,
        concurrency=point.concurrency,
        duration_s=asked["duration_s"],
    )
    return {**asdict(point), **found}


def _planned(asked: Mapping[str, Any], repeat: int) -> Iterator[_Point]:
    for transport in asked["transports"]:
        for concurrency in asked["concurrency"]:
            yield _Point(transport, int(concurrency), 0.0, repeat)
        for rate in asked["rates"]:
            yield _Point(transport, 0, float(rate), repeat)


def _measure(
    service: Service, asked: Mapping[str, Any], point: _Point, arrays: list[dict[str, np.ndarray]]
) -> dict[str, Any]:
    """A row: with more processes for as long as they, and not the service, are busy."""
    cores = len(os.sched_getaffinity(0))
    processes = asked["processes"] or 1
    while True:
        row = _with(service, asked, point, arrays, processes)
        more = 2 * processes <= min(cores, point.concurrency or cores)
        if asked["processes"] or not row["saturated"] or not more:
            return row
        processes *= 2


def _with(
    service: Service,
    asked: Mapping[str, Any],
    point: _Point,
    arrays: list[dict[str, np.ndarray]],
    processes: int,
) -> dict[str, Any]:
    before: list[Statistics] = []

    def counted() -> Statistics:
        each = [endpoint.transports[point.transport] for endpoint in service.endpoints]
        return sum_of([statistics(transport, asked["name"]) for transport in each])

    def begin() -> None:
        before.append(counted())

    tasks = [
        Task(
            asked["name"],
            point.transport,
            asked["duration_s"],
            point.concurrency // processes + (each < point.concurrency % processes),
            point.rate / processes if point.rate else None,
            asked["seed"] + 1000 * point.repeat + each,
        )
        for each in range(processes)
    ]
    if processes == 1:
        done = [call(service, tasks[0], arrays, begin)]
    else:
        done = call_from_processes(service.found, tasks, arrays, begin)
    return {
        **asdict(point),
        "processes": processes,
        **_summary(done, counted() - before[0]),
    }


def _summary(done: Sequence[Calls], counted: Statistics) -> dict[str, Any]:
    latencies = np.concatenate([each.latencies_s for each in done])
    failed: dict[str, int] = {}
    for kind, count in (pair for each in done for pair in each.failed.items()):
        failed[kind] = failed.get(kind, 0) + count
    elapsed_s = max(each.elapsed_s for each in done)
    cores = max(each.process_cpu_s / each.elapsed_s for each in done)
    row = {
        "answered": len(latencies),
        "failed": sum(failed.values()),
        "errors": failed,
        "others": counted.requests + counted.failed - len(latencies) - sum(failed.values()),
        "seconds": elapsed_s,
        "throughput_s": sum(each.throughput_s for each in done),
        "mean_batch": counted.mean_batch,
        "client_cores": cores,
        "saturated": bool(cores > SATURATED),
    }
    if not len(latencies):
        return row
    for share in (50, 90, 99):
        row[f"p{share}_us"] = 1e6 * float(np.percentile(latencies, share))
    requests = max(counted.requests, 1)
    parts = {
        "client": float(np.concatenate([each.cpu_s for each in done]).mean()),
        "queue": counted.queue_s / requests,
        "compute": counted.compute_s / requests,
        "server": (counted.total_s - counted.queue_s - counted.compute_s) / requests,
    }
    parts["network"] = float(latencies.mean()) - sum(parts.values())
    row |= {f"{part}_us": 1e6 * seconds for part, seconds in parts.items()}
    return row | {"mean_us": 1e6 * float(latencies.mean())}


def _called(
    model: Callable[..., Any], arrays: list[dict[str, np.ndarray]], duration_s: float
) -> list[float]:
    import torch

    tensors = [tuple(torch.from_numpy(x) for x in each.values()) for each in arrays]
    seconds: list[float] = []
    with torch.no_grad():
        model(*tensors[0])
        end = time.perf_counter() + duration_s
        while time.perf_counter() < end:
            start = time.perf_counter()
            model(*tensors[len(seconds) % len(tensors)])
            seconds.append(time.perf_counter() - start)
    return seconds
