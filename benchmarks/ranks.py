"""One rank against more on this machine: efficiency, and where the rest goes.

Training steps on ttbar events of very different pile-up, shared out by edges as training does it
and, beside that, one graph after the other. Every number is read from the records of the studies
(`sml_kernel.scaling`), which a second call with the same folder takes up where they are.

    python benchmarks/ranks.py --folder runs/ranks [--ranks 1 2] [--repeats 3]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from sml_kernel import scaling, tracking
from sml_kernel.scaling.results import Study
from sml_kernel.tracking.benchmark import ASSIGNMENTS


def main() -> None:
    given = _arguments()
    folder = Path(given.folder)
    events = [
        event
        for pileup in given.pileup
        for event in tracking.simulate(given.events, pileup=pileup, seed=given.seed)
    ]
    graphs = tracking.build_graphs(events, progress=True)
    sizes = tracking.summarise_graphs(graphs).edges
    print(f"{len(graphs)} graphs of {sizes.min():,} to {sizes.max():,} edges")
    for assign in ASSIGNMENTS:
        benchmark = tracking.step_benchmark(
            graphs,
            batch=given.batch,
            steps=given.steps,
            hidden=given.hidden,
            iterations=given.iterations,
            assign=assign,
            seed=given.seed,
            folder=folder / "graphs",
        )
        study = scaling.study(
            benchmark, ranks=given.ranks, repeats=given.repeats, folder=folder / assign
        )
        report(study)


def report(study: Study) -> None:
    """Efficiency, its losses, waiting, and what to doubt."""
    table, losses, phases = study.table(), study.losses(), study.phases()
    print(f"\n{study}\nassigned by {study.parameters['run']['assign']}")
    shown = ["ranks", "throughput", "error", "efficiency", "efficiency_error"]
    print(table[shown].round(3).to_string(index=False))
    print("\nlost, by phase\n" + losses.round(4).to_string(index=False))
    parts = phases.drop(columns=["ranks", "step_s", "other_s"], errors="ignore").sum(axis=1)
    shares = pd.DataFrame({"ranks": phases.ranks, "parts / step": parts / phases.step_s})
    waited = phases.wait_s / phases.step_s
    print("\n" + shares.assign(waiting=waited).round(4).to_string(index=False))
    print("\nflags\n" + (study.flags().to_string(index=False) if len(study.flags()) else "none"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="runs/ranks", help="the same again goes on with it")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pileup", type=int, nargs="+", default=[0, 2, 5, 10, 20])
    parser.add_argument("--events", type=int, default=16, help="of each pile-up")
    for name, default in (("batch", 8), ("steps", 20), ("hidden", 48), ("iterations", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
