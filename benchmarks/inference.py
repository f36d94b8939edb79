"""Hits to tracks stage by stage, at each pile-up, with ACTS' Kalman filter on the same events.

Simulates events (kept between runs, ten at a time) and takes each through both chains in turn, pass
by pass: hits → graph → scores → tracks, and seeding → Kalman filter → ambiguity resolution. Prints
a table of medians with quartiles for each pile-up, how many times longer ACTS takes, and what both
find by the same fiducial. Everything goes to the run folder: rows of kind `inference` (a stage and
pass), `tracking` (a chain and pile-up) and `ratio`.

    python benchmarks/inference.py --folder runs/inference
    python benchmarks/inference.py --pileup 0 10 --events 2 --repeats 1      # does it work?

Run it on an idle machine: times are by the clock. Both chains have one thread unless --threads
gives the network more; ACTS always has one. At pile-up 200 a pass takes tens of seconds an event,
and simulating the first ten events some minutes.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict

from sml_kernel import records
from sml_kernel.tracking import (
    Event,
    InferenceTimes,
    KalmanSettings,
    pretrained,
    score_tracks,
    simulate,
    time_inference,
)


def main() -> None:
    given = _arguments()
    settings = KalmanSettings()
    run = records.start(
        given.folder,
        kind="inference",
        parameters={**vars(given), "kalman": asdict(settings), "load_at_start": os.getloadavg()[0]},
        seed=given.seed,
    )
    print(f"records go to {run.folder}")
    found = pretrained(given.model)
    model = found.model.to(given.device)
    with run.writer() as writer:
        for pileup in given.pileup:
            events = simulate(given.events, pileup, given.seed)
            took = time_inference(
                events,
                found.cuts,
                model,
                kalman=settings,
                repeats=given.repeats,
                threads=given.threads,
                pileup=pileup,
                progress=True,
            )
            writer.append("ratio", pileup=pileup, **took.ratio())
            took.append(writer)
            print_times(pileup, took)
            for chain in took.labels:
                print_tracks(writer, events, took, chain, pileup, given.fiducial)
    run.finish("done")


def print_times(pileup: int, took: InferenceTimes) -> None:
    """Medians with quartiles over events and repeats, in ms."""
    table = took.table()
    first = table.iloc[0]
    print(f"\npile-up {pileup}: {first.hits:,.0f} hits, {first.edges:,.0f} edges an event")
    for row in table.itertuples():
        median, low, high = (1000 * each for each in (row.median_s, row.low_s, row.high_s))
        passes = f"{row.passes} passes"
        print(f"  {row.chain:8} {row.stage:14} {median:9.1f} ms ({low:.1f}–{high:.1f}, {passes})")
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pileup", type=int, nargs="+", default=[0, 10, 50, 100, 140, 200], help="of each table")
    add("--events", type=int, default=5, help="timed at each pile-up (default %(default)s)")
    add("--repeats", type=int, default=3, help="timed passes an event, after one that warms up")
    add("--threads", type=int, default=1, help="of the network (default %(default)s)")
    add("--seed", type=int, default=1000, help="of the events; the network was trained on 1 and 2")
    add("--model", default="ttbar-pileup50", help="see tracking.pretrained (default %(default)s)")
    add("--device", default="cpu", help="of the network: cpu or cuda (default %(default)s)")
    add("--fiducial", default="central", help="what counts in figures (default %(default)s)")
    add("--folder", help="new folder for the records; default: runs/inference-<time>")
    return parser.parse_args()


if __name__ == "__main__":
    main()
