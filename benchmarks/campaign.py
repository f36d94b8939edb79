"""A campaign from plan to scorecard on the workers of this machine, and the same one killed.

    python benchmarks/campaign.py [--members 10000] [--problem gaussian|interference] [--kills 5]

Prints and records the seconds of each part, the peak memory of all processes together, and what
came out: the scorecard, and the ensemble's ratio on a million events that no network has seen,
against the exact one. With ``--kills`` the campaign is made a second time, its process killed by
SIGKILL that often at random moments; then members, figures and ratios are compared bit by bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

import sml_kernel as sml
from sml_kernel import records, sbi
from sml_kernel.sbi.scorecard import metrics

#: By problem: family, numerator and reference, and what members are made of.
PROBLEMS = {
    "gaussian": (sbi.GaussianShift(1.0), ("shifted", "reference"), {"hidden": (16, 16)}),
    "interference": (
        sbi.QuadraticInterference(),
        ("SBI", "B"),
        {"hidden": (32, 32), "batch": 2048},
    ),
}
SETTINGS = {"batch": 512, "learning_rate": 3e-3, "epochs": 30, "patience": 3}


def main() -> None:
    given = arguments()
    if given.only_fit:  # the process that is killed
        with sml.launch("laptop", cpus=given.cpus) as workers:
            print("begun", flush=True)
            ensemble(given).fit(workers, Path(given.folder) / "killed", progress=False)
        return
    run = records.start(given.folder, kind="campaign", parameters=vars(given))
    with run.writer("campaign") as writer:
        whole = made(given, run.folder / "whole", writer, kills=0)
        if given.kills:
            again = made(given, run.folder / "killed", writer, kills=given.kills)
            same = {name: bool(whole[name] == again[name]) for name in ("members", "ratio")}
            writer.append("same", kills=given.kills, **same)
            print(f"killed {given.kills} times and whole: {same}")
    run.finish("done")
    print(f"recorded in {run.folder}")


def ensemble(given: argparse.Namespace) -> sbi.Ensemble:
    """Each member trains and stops by about 20,000 events."""
    family, (_, reference), settings = PROBLEMS[given.problem]
    problem = sbi.draw(family, events=given.events, seed=1)
    return sbi.Ensemble(problem, given.members, reference=reference, **SETTINGS | settings)


def made(
    given: argparse.Namespace, folder: Path, writer: records.Writer, kills: int
) -> dict[str, bytes]:
    """Plan, train, judge, combine; what came out, as bytes to be compared."""
    parts: dict[str, float] = {}
    with peak_memory() as peak:
        for _ in range(kills):
            with timed(parts, "killed"):
                killed(given)
        with timed(parts, "start"):
            workers = sml.launch("laptop", cpus=given.cpus)
            workers.wait(timeout_s=120)
        with workers:
            with timed(parts, "train"):
                fit = ensemble(given).fit(workers, folder, progress=False)
            with timed(parts, "score"):
                card = fit.scorecard(progress=False)
            with timed(parts, "combine"):
                table = fit.members(progress=False).sort_values("key")
                found = combined(given, fit)
    state = fit.progress()
    print(card)
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items()))
    print(f"in all {sum(parts.values()):.1f} s; {state}; peak memory {peak[0] / 1e9:.2f} GB")
    print(
        f"excess {found['excess']:.2e} ± {found['excess_error']:.1e}, AUC {found['auc']:.5f} ± "
        f"{found['auc_error']:.5f} on {given.judged:,} events (exact {found['exact_auc']:.5f})"
    )
    writer.append(
        "made",
        kills=kills,
        **{f"{name}_s": seconds for name, seconds in parts.items()},
        wall_s=sum(parts.values()),
        peak_bytes=peak[0],
        passed=card.passed,
        **vars(state),
        **{name: value for name, value in found.items() if name != "bytes"},
    )
    figures = table.drop(columns=["losses"]).to_csv(index=False)
    assert table.key.is_unique
    return {"members": figures.encode(), "ratio": found["bytes"]}


def killed(given: argparse.Namespace) -> None:
    """Fit in a process of its own and kill it within some tenths of what is to do."""
    arguments = [f"--{name}={getattr(given, name)}" for name in ("members", "problem", "cpus")]
    arguments += [f"--events={given.events}", f"--folder={given.folder}", "--only-fit"]
    begun = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert begun.stdout is not None
    begun.stdout.readline()
    time.sleep(random.uniform(1, given.members / 250))
    begun.send_signal(signal.SIGKILL)
    begun.wait()


def combined(given: argparse.Namespace, fit: sbi.Fit) -> dict:
    """The ensemble's ratio on events of its own, against the exact ratio."""
    family, pair, _ = PROBLEMS[given.problem]
    draws = [np.random.default_rng([99, k]) for k in range(2)]
    x = np.concatenate(
        [
            family.sample(name, given.judged // 2, rng)[0]
            for name, rng in zip(pair, draws, strict=True)
        ]
    ).astype(np.float32)
    ratio = fit.ratio(x, pair[0], progress=False).ratio
    exact = sbi.log_ratio(family, x, *pair)
    held = metrics.Held(x[:, :1], np.arange(len(x)) < len(x) // 2, np.ones(len(x)), exact)
    judged = metrics.judge(np.stack([np.log(ratio), exact]), held)
    names = ("bce", "excess", "excess_error", "auc", "auc_error", "normalisation")
    found = {name: float(judged[name][0]) for name in names}
    return found | {"exact_auc": float(judged["auc"][1]), "bytes": ratio.tobytes()}


@contextmanager
def timed(parts: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    parts[name] = parts.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Largest sum of what this process and all below it hold alone or share."""
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            total = 0
            for each in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with_gone = _pss(each)
                total += with_gone
            peak[0] = max(peak[0], total)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield peak
    finally:
        over.set()
        watching.join()


def _pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # it has ended
        return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--problem", choices=PROBLEMS, default="gaussian")
    parser.add_argument("--events", type=int, default=25_000, help="of each class")
    parser.add_argument("--judged", type=int, default=1_000_000, help="new events")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--folder", default=f"runs/campaign-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--only-fit", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
