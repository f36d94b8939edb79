"""Hits to tracks stage by stage, at each pile-up, with ACTS' Kalman filter on the same events.

Simulates events (kept between runs, ten at a time), learns cuts from others, and takes each event
through both chains in turn, pass by pass: hits → graph → scores → tracks, and seeding → Kalman
filter → ambiguity resolution. Prints a table of medians with quartiles for each pile-up, how many
times longer ACTS takes, and what both find by the same fiducial. Everything goes to the run folder:
rows of kind `inference` (a stage and pass), `tracking` (a chain and pile-up) and `ratio`.

    python benchmarks/inference.py --model gnn.safetensors --folder runs/inference
    python benchmarks/inference.py --pileup 0 10 --events 2 --repeats 1      # does it work?

Run it on an idle machine: times are by the clock. Both chains have one thread unless --threads
gives the network more; ACTS always has one. Without --model the network is untrained: it takes the
time of a trained one up to its scores, but its tracks mean nothing, so neither the time to build
them nor what they find is recorded. At pile-up 200 a pass takes tens of seconds an event, and
simulating the first ten events some minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from sml_kernel import records
from sml_kernel.tracking import (
    Event,
    InferenceTimes,
    InteractionGNN,
    KalmanSettings,
    learn_cuts,
    score_tracks,
    simulate,
    time_inference,
)
from sml_kernel.tracking.inference import ACTS, NETWORK, TOTAL

NODE_FEATURES, EDGE_FEATURES = 3, 6


def main() -> None:
    given = _arguments()
    settings = KalmanSettings()
    run = records.start(
        given.folder,
        kind="inference",
        parameters={**vars(given), "kalman": asdict(settings), **_machine()},
        seed=given.seed,
    )
    print(f"records go to {run.folder}")
    model = _model(given)
    training = simulate(given.cut_events, given.cut_pileup, given.cut_seed)
    cuts = learn_cuts(training)
    print(cuts)
    with run.writer() as writer:
        for pileup in given.pileup:
            events = simulate(given.events, pileup, given.seed)
            took = time_inference(
                events,
                cuts,
                model,
                kalman=settings,
                repeats=given.repeats,
                threads=given.threads,
                pileup=pileup,
                progress=True,
            )
            if given.model:
                writer.append("ratio", pileup=pileup, **took.ratio())
            else:
                took = without_tracks(took)
            took.append(writer)
            print_times(pileup, took)
            for chain in took.labels:
                print_tracks(writer, events, took, chain, pileup, given.fiducial)
    run.finish("done")


def without_tracks(took: InferenceTimes) -> InferenceTimes:
    """Without what an untrained network's tracks are, and how long they take."""
    rows = [row for row in took.rows if (row["chain"], row["stage"]) != (NETWORK, "tracks")]
    return InferenceTimes(rows, {ACTS: took.labels[ACTS]})


def print_times(pileup: int, took: InferenceTimes) -> None:
    """Medians with quartiles over events and repeats, in ms."""
    table, trained = took.table(), NETWORK in took.labels
    first = table.iloc[0]
    print(f"\npile-up {pileup}: {first.hits:,.0f} hits, {first.edges:,.0f} edges an event")
    for row in table.itertuples():
        if row.chain == NETWORK and row.stage == TOTAL and not trained:
            print("  network  tracks and total are not shown: it is untrained, give --model")
            continue
        median, low, high = (1000 * each for each in (row.median_s, row.low_s, row.high_s))
        passes = f"{row.passes} passes"
        print(f"  {row.chain:8} {row.stage:14} {median:9.1f} ms ({low:.1f}–{high:.1f}, {passes})")
    if trained:
        ratio = took.ratio()
        spread = f"{ratio['low']:.2f}–{ratio['high']:.2f}"
        print(f"  ACTS takes {ratio['median']:.2f} times as long ({spread})")


def print_tracks(
    writer: records.Writer,
    events: list[Event],
    took: InferenceTimes,
    chain: str,
    pileup: int,
    fiducial: str,
) -> None:
    scores = score_tracks(events, took.labels[chain], fiducial)
    writer.append("tracking", chain=chain, pileup=pileup, events=len(events), **scores.record())
    print(f"  {chain:8} {scores.headline()}")


def _model(given: argparse.Namespace) -> InteractionGNN:
    if given.model:
        return InteractionGNN.load(given.model).to(given.device)
    torch.manual_seed(given.seed)
    network = InteractionGNN(NODE_FEATURES, EDGE_FEATURES, given.hidden, given.iterations)
    return network.to(given.device)


def _machine() -> dict[str, object]:
    return {"cpu": next(_cpu_names(), platform.processor()), "load_at_start": os.getloadavg()[0]}


def _cpu_names() -> Iterator[str]:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            yield line.partition(":")[2].strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pileup", type=int, nargs="+", default=[0, 10, 50, 100, 140, 200], help="of each table")
    add("--events", type=int, default=5, help="timed at each pile-up (default %(default)s)")
    add("--repeats", type=int, default=3, help="timed passes an event, after one that warms up")
    add("--threads", type=int, default=1, help="of the network (default %(default)s)")
    add("--seed", type=int, default=1000, help="of the timed events; not one you trained with")
    add("--model", help="weights of a trained InteractionGNN (model.save), on the cuts below")
    add("--hidden", type=int, default=64, help="width of the untrained network")
    add("--iterations", type=int, default=6, help="of the untrained network")
    add("--device", default="cpu", help="of the network: cpu or cuda (default %(default)s)")
    add("--cut-events", type=int, default=30, help="that cuts are learnt from, as in training")
    add("--cut-pileup", type=int, default=10, help="of these (default %(default)s)")
    add("--cut-seed", type=int, default=1, help="of these (default %(default)s)")
    add("--fiducial", default="central", help="what counts in figures (default %(default)s)")
    add("--folder", help="new folder for the records; default: runs/inference-<time>")
    given = parser.parse_args()
    if given.seed == given.cut_seed and given.cut_pileup in given.pileup:
        parser.error("the timed events would be those that cuts are learnt from: change --seed")
    return given


if __name__ == "__main__":
    main()
