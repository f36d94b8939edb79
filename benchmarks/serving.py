"""Models as a service on this machine: what a real Triton and our client add, lose and join.

Each measurement starts its own server and writes a run of its own; figures that belong together
take turns in it, so that a slow minute slows all alike. The model is the tracking network
`ttbar-pileup50` on graphs of different sizes, each under 1000 nodes at the default.

    equal      largest |served − direct| over all graphs, of each transport, alone and joined
    perf       p50 and throughput of our client over those of perf_analyzer, in turns
    added      time over a direct call at one request at a time, of the graph nearest --nodes nodes
    batching   mean batch and throughput at --concurrency, with batches and without, in turns
    wan        throughput through a round trip over that without, and which transport is chosen
    reconcile  requests from processes over two servers that are killed in turn: both sides' counts
    startup    from `serving.start` to the first answer, one torch module

    python benchmarks/serving.py equal --folder runs/equal
    python benchmarks/serving.py perf                       # fetches perf_analyzer (14 MB) once
    python benchmarks/serving.py wan --round-trip-ms 20 100
    python benchmarks/serving.py reconcile --requests 100000
    python benchmarks/serving.py batching --graphs 8 --duration-s 0.5 --repeats 1   # does it work?

Run it on an idle machine: times are by the clock, and client and server share its cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from delaying import delayed
from reconciling import reconcile

from sml_kernel import records, serving, tracking
from sml_kernel.serving.callers import Task, call
from sml_kernel.serving.connecting import opened
from sml_kernel.serving.discovery import Discovery
from sml_kernel.serving.perf_analyzer import install_perf_analyzer

_CONCURRENCY = (1, 2, 4, 8)  # of `perf`


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    run = records.start(given.folder, kind=f"serving-{given.what}", parameters=vars(given))
    print(f"records go to {run.folder}")
    with run.writer() as writer:
        _MEASURED[given.what](given, run, writer)
    run.finish("done")


def equal(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    net, graphs = tracker(), collisions(given)
    direct = [tracking.score_segments(net.model, graph) for graph in graphs]
    with served(run, queue_delay_us=20_000) as service:  # long, so that requests meet
        for transport in service.transports:
            for callers in (1, 16):
                began = counted(service)
                with ThreadPoolExecutor(callers) as pool:
                    asked = [
                        pool.submit(service.infer, "tracker", g, transport=transport)
                        for g in graphs
                    ]
                    answers = [each.result() for each in asked]
                apart = max(
                    float(np.abs(ours - theirs).max(initial=0.0))
                    for ours, theirs in zip(direct, answers, strict=True)
                )
                batch = (counted(service) - began).mean_batch
                row = {"transport": transport, "callers": callers, "max_difference": apart}
                say(writer, "equal", **row, graphs=len(graphs), mean_batch=batch)


def perf(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    install_perf_analyzer()
    with served(run) as service:
        load = serving.sweep(
            service,
            "tracker",
            collisions(given),
            concurrency=_CONCURRENCY,
            transports=list(service.transports),
            duration_s=given.duration_s,
            repeats=given.repeats,
            perf_analyzer=True,
            folder=run.folder / "sweep",
        )
    for each in load.table().itertuples():
        say(
            writer,
            "perf",
            transport=each.transport,
            concurrency=each.concurrency,
            p50_us=each.p50_us,
            analyzer_p50_us=each.analyzer_p50_us,
            p50_ratio=each.p50_us / each.analyzer_p50_us,
            throughput_ratio=each.throughput_s / each.analyzer_throughput_s,
        )


def added(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    """One call of each way after another, so that all see the same machine."""
    net = tracker()
    graph = min(collisions(given), key=lambda each: abs(each.num_nodes - given.nodes))
    with served(run) as service:
        ways: dict[str, Callable[[], Any]] = {
            name: lambda name=name: service.infer("tracker", graph, transport=name)  # type: ignore[misc]
            for name in service.transports
        }
        ways["direct"] = lambda: tracking.score_segments(net.model, graph)
        times = in_turns(ways, max(given.repeats, 5) * 100)
    direct = statistics.median(times["direct"])
    for name in service.transports:
        pairs = np.subtract(times[name], times["direct"])
        low, middle, high = 1e3 * np.percentile(pairs, [25, 50, 75])
        row = {"transport": name, "nodes": graph.num_nodes, "edges": graph.num_edges}
        row |= {"direct_ms": 1e3 * direct, "added_ms": middle, "low_ms": low, "high_ms": high}
        say(writer, "added", **row)


def batching(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    graphs = collisions(given)
    ways = {"joined": {}, "waiting 5 ms": {"queue_delay_us": 5000}, "alone": {"max_joined": 1}}
    services = {
        name: served(run, name.replace(" ", "-"), **how)  # type: ignore[arg-type]
        for name, how in ways.items()
    }
    rows = []
    try:
        for repeat in range(given.repeats):
            for name, service in services.items():
                load = loaded(service, graphs, given.concurrency, given.duration_s)
                rows.append({"way": name, "repeat": repeat, **load})
                writer.append("batching", **rows[-1])
    finally:
        for service in services.values():
            service.close()
    table = pd.DataFrame(rows).groupby("way", sort=False)[["throughput_s", "mean_batch"]].median()
    alone = table.throughput_s["alone"]
    for row in table.itertuples():
        ratio = row.throughput_s / alone
        say(writer, "summary", way=row.Index, mean_batch=row.mean_batch, over_alone=ratio)


def wan(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    graphs = collisions(given)
    with served(run) as service:
        (place,) = service.found.places
        for round_trip_ms in given.round_trip_ms:
            with (
                delayed(place.grpc, round_trip_ms) as grpc,
                delayed(place.http, round_trip_ms) as web,
            ):
                far = Discovery((replace(place, grpc=grpc, http=web),))
                for repeat in range(given.repeats):
                    for name in service.transports:
                        here = loaded(service, graphs, given.concurrency, given.duration_s, name)
                        with opened(far) as distant:
                            there = loaded(
                                distant, graphs, given.concurrency, given.duration_s, name
                            )
                        ratio = there["throughput_s"] / here["throughput_s"]
                        row = {"round_trip_ms": round_trip_ms, "transport": name, "repeat": repeat}
                        say(writer, "wan", **row, ratio=ratio, throughput_s=there["throughput_s"])
                for trial in range(given.trials):
                    say(writer, "chosen", round_trip_ms=round_trip_ms, **chosen(far, graphs, trial))


def chosen(far: Discovery, graphs: Sequence[Any], trial: int) -> dict[str, Any]:
    """What a new client chooses, and which is the faster in requests of its own, in turns."""
    graph = graphs[trial % len(graphs)]
    with opened(far) as service:
        service.infer("tracker", graph)
        ((_, measured),) = service.measured.items()
        ways = {
            name: lambda name=name: service.infer("tracker", graph, transport=name)  # type: ignore[misc]
            for name in service.transports
        }
        found = {name: statistics.median(times) for name, times in in_turns(ways, 15).items()}
    first = min(measured, key=lambda name: measured[name])
    fastest = min(found, key=lambda name: found[name])
    return {
        "trial": trial,
        "chosen": first,
        "fastest": fastest,
        "loss": found[first] / found[fastest],
    }


def startup(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(7, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1))
    example = torch.zeros(1, 7)
    serving.install_triton()
    for repeat in range(given.repeats):
        began = time.perf_counter()
        folder = run.folder / f"server-{repeat}"
        with serving.start({"net": net}, examples={"net": example}, folder=folder) as service:
            service.infer("net", example)
            seconds = time.perf_counter() - began
        say(writer, "startup", repeat=repeat, first_answer_s=seconds)


def reconciled(given: argparse.Namespace, run: records.Run, writer: records.Writer) -> None:
    for row in reconcile(run.folder, requests=given.requests, processes=given.processes):
        say(writer, row.pop("kind"), **row)


def served(run: records.Run, name: str = "server", **how: Any) -> serving.Service:
    """The tracker on a server of its own below the run."""
    return serving.start({"tracker": tracker().model}, folder=run.folder / name, **how)


def tracker() -> tracking.Pretrained:
    return tracking.pretrained("ttbar-pileup50")


def collisions(given: argparse.Namespace) -> list[Any]:
    """Graphs of different sizes: events of a particle gun with from 5 to 40 particles."""
    each = -(-given.graphs // 8)
    events = [
        event
        for step in range(8)
        for event in tracking.simulate(
            each, 0, given.seed, process="gun", gun_particles=5 * (step + 1), progress=False
        )
    ]
    return tracking.build_graphs(events, tracker().cuts)[: given.graphs]


def loaded(
    service: serving.Service,
    graphs: Sequence[Any],
    concurrency: int,
    duration_s: float,
    transport: str = "grpc",
) -> dict[str, float]:
    """Throughput and mean batch of one closed loop."""
    inputs = [
        {name: graph[name].numpy() for name in ("x", "edge_index", "edge_attr")} for graph in graphs
    ]
    before: list[Any] = []
    task = Task("tracker", transport, duration_s, concurrency)
    done = call(service, task, inputs, lambda: before.append(counted(service)))
    if done.failed:
        raise RuntimeError(f"requests failed: {done.failed}")
    return {
        "throughput_s": done.throughput_s,
        "mean_batch": (counted(service) - before[0]).mean_batch,
    }


def counted(service: serving.Service) -> Any:
    from sml_kernel.serving.statistics import statistics as of

    return of(service.transports["grpc"], "tracker")


def in_turns(ways: dict[str, Callable[[], Any]], times: int) -> dict[str, list[float]]:
    """Seconds of each call; five of each warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times + 5):
        for name, ask in ways.items():
            began = time.perf_counter()
            ask()
            seconds[name].append(time.perf_counter() - began)
    return {name: each[5:] for name, each in seconds.items()}


def say(writer: records.Writer, kind: str, **values: Any) -> None:
    writer.append(kind, **values)
    told = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
    print(f"{kind}: {', '.join(told)}", flush=True)


_MEASURED = {
    "equal": equal,
    "perf": perf,
    "added": added,
    "batching": batching,
    "wan": wan,
    "reconcile": reconciled,
    "startup": startup,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=list(_MEASURED), help="what is measured")
    add("--graphs", type=int, default=200, help="of different sizes (default %(default)s)")
    add("--nodes", type=int, default=500, help="of the graph of `added` (default %(default)s)")
    add(
        "--concurrency",
        type=int,
        default=16,
        help="of batching and wan: more than the round trip holds (default %(default)s)",
    )
    add("--duration-s", type=float, default=3.0, help="of each point (default %(default)s)")
    add("--repeats", type=int, default=5, help="of each (default %(default)s)")
    add("--round-trip-ms", type=float, nargs="+", default=[20, 100], help="of wan")
    add("--trials", type=int, default=10, help="choices of a transport in wan")
    add("--requests", type=int, default=100_000, help="of reconcile, in all")
    add("--processes", type=int, default=4, help="that ask in reconcile")
    add("--threads", type=int, default=1, help="of direct calls (default %(default)s)")
    add("--seed", type=int, default=1000, help="of the events")
    add("--folder", help="new folder for the records; default: runs/serving-<what>-<time>")
    return parser.parse_args()


if __name__ == "__main__":
    main()
