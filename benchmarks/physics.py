"""The recipe of the network that comes with the package, and what it reaches.

``train`` simulates ttbar events (Pythia 8, ACTS' Generic detector, smeared hits), learns the cuts
of the graphs from the training events, and trains one network first at pile-up 10, where an epoch
is cheap, then at pile-up 50: within an hour on two cores. ``judge`` finds tracks in held-out events
of other seeds at pile-up 50 and 200, with both track builders, beside the ceiling and ACTS' own
seeding and Kalman filter on the same hits, and writes a record. ``publish`` puts the network, with
its cuts, its provenance and these figures, in one file for `tracking.pretrained`.

    python benchmarks/physics.py train --folder runs/physics
    python benchmarks/physics.py judge --folder runs/physics
    python benchmarks/physics.py publish --folder runs/physics --to ttbar-pileup50.safetensors
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from tqdm.auto import tqdm

from sml_kernel import records, tracking
from sml_kernel.tracking.events import Event
from sml_kernel.tracking.shipped import Pretrained, pretrained
from sml_kernel.tracking.tracks import METHODS

FIDUCIAL = "central"
#: Windows of candidate segments: narrow, as at pile-up 200 every one that is false costs time.
WINDOWS = {"quantile": 0.999, "margin": 1.0, "vertex_margin": 1.0, "min_segments": 50}
#: Score cuts that are tried on validation events.
CUTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
NAME = "trained.safetensors"


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    folder = Path(given.folder)
    if given.what == "train":
        train(folder, given)
    elif given.what == "judge":
        judge(folder, given)
    else:
        publish(folder, Path(given.to))


def train(folder: Path, given: argparse.Namespace) -> None:
    """Train at pile-up 10, then at 50; writes the network and what it cost."""
    run = records.start(folder, kind="physics-train", parameters=vars(given), seed=given.seed)
    begin = time.perf_counter(), _cpu_s()
    few = tracking.simulate(given.events[0], pileup=10, seed=given.seed)
    many = tracking.simulate(sum(given.events[1:]), pileup=50, seed=given.seed + 1)
    training, validation = many[: given.events[1]], many[given.events[1] :]
    cuts = tracking.learn_cuts([*few, *training], **WINDOWS)
    graphs = [tracking.build_graphs(part, cuts) for part in (few, training, validation)]
    model = None
    stages = (("pileup10", graphs[0], 3e-3), ("pileup50", graphs[1], 2e-3))
    for (name, part, rate), epochs in zip(stages, given.epochs, strict=True):
        trained = tracking.train(
            part,
            graphs[2],
            model=model,
            hidden=given.hidden,
            iterations=given.iterations,
            epochs=epochs,
            learning_rate=rate,
            ranks=given.ranks,
            threads=given.threads,
            seed=given.seed,
            folder=folder / name,
        )
        _watch(trained, name)
        model = trained.model
    assert model is not None
    cost = {"wall_s": time.perf_counter() - begin[0], "cpu_s": _cpu_s() - begin[1]}
    cut = {method: _best_cut(model, validation, graphs[2], method) for method in METHODS}
    with run.writer("cost") as writer:
        writer.append("cost", **cost, load=os.getloadavg()[0], cores=os.cpu_count())
    origin = {"recipe": "benchmarks/physics.py", "parameters": vars(given), "windows": WINDOWS}
    origin["score_cuts"] = cut
    Pretrained(model, cuts, {**origin, **cost, **run.provenance()}).save(folder / NAME)
    run.finish("done")


def judge(folder: Path, given: argparse.Namespace) -> None:
    """Both builders and ACTS' Kalman filter on the same held-out events."""
    found = pretrained(folder / NAME)
    run = records.start(folder / "judged", kind="physics", parameters=vars(given))
    with run.writer("figures") as writer:
        for pileup, count in zip(given.pileup, given.held_out, strict=True):
            events = tracking.simulate(count, pileup=pileup, seed=given.seed + 1000 + pileup)
            graphs = tracking.build_graphs(events, found.cuts, progress=True)
            scores = [
                tracking.score_segments(found.model, graph)
                for graph in tqdm(graphs, desc="scoring", unit="event")
            ]
            for name, table in _builders(found, events, graphs, scores).items():
                for row in table:
                    writer.append("figures", pileup=pileup, events=count, builder=name, **row)
                    _say(pileup, name, row)
            _graphs(writer, pileup, graphs)
    run.finish("done")


def _builders(
    found: Pretrained, events: Sequence[Event], graphs: Sequence[Data], scores: Sequence[np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """By each builder, rows of its ceiling and of what it makes of the network's scores."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        cut = found.provenance["score_cuts"][method]
        stages = tracking.score_stages(events, graphs, scores, FIDUCIAL, cut=cut, method=method)
        rows[method] = [
            {"of": of, "score_cut": cut, **each.record()}
            for of, each in (("ceiling", stages.ceiling), ("network", stages.network))
        ]
    tracks = tracking.kalman_tracks(events)
    judged = tracking.score_tracks(events, tracks, FIDUCIAL)
    rows["ACTS seeding and Kalman filter"] = [{"of": "ACTS", **judged.record()}]
    return rows


def publish(folder: Path, to: Path) -> None:
    """The network with the figures of its record."""
    found = pretrained(folder / NAME)
    figures = records.read(folder / "judged").query("kind == 'figures'")
    shown = ["pileup", "builder", "of", "efficiency", "efficiency_error", "fake_rate"]
    table = figures[[*shown, "fake_rate_error"]].to_dict("records")
    origin = {**found.provenance, "figures": table}
    origin["parameters"].pop("folder", None)  # this and the process say nothing to a reader
    for name in ("status", "end", "pid", "pid_started"):
        origin.pop(name, None)
    Pretrained(found.model, found.cuts, origin).save(to)
    print(f"{to}: {to.stat().st_size / 1e6:.2f} MB")


def _watch(run: tracking.TrainingRun, name: str) -> None:
    """A line an epoch."""
    for row in run:
        if row["kind"] == "epoch":
            print(
                f"{name} epoch {row['epoch']}: loss {row['train_loss']:.4f}, validation "
                f"{row['validation_loss']:.4f}, edge efficiency {row['edge_efficiency']:.4f}, "
                f"purity {row['edge_purity']:.4f}",
                flush=True,
            )


def _best_cut(
    model: torch.nn.Module, events: Sequence[Event], graphs: Sequence[Data], method: str
) -> float:
    """The cut of the largest efficiency less fake rate on validation events."""
    scores = [tracking.score_segments(model, graph) for graph in graphs]

    def gain(cut: float) -> float:
        joined = zip(graphs, scores, strict=True)
        tracks = [tracking.join_segments(*each, cut=cut, method=method) for each in joined]
        row = tracking.score_tracks(events, tracks, FIDUCIAL).row()
        return row["efficiency"] - row["fake_rate"]

    return max(CUTS, key=gain)


def _graphs(writer: records.Writer, pileup: int, graphs: Sequence[Data]) -> None:
    for row in tracking.summarise_graphs(graphs).to_dict("records"):
        writer.append("graph", pileup=pileup, **row)


def _say(pileup: int, name: str, row: dict[str, Any]) -> None:
    print(
        f"pile-up {pileup:3} {name:32} {row['of']:8} efficiency {row['efficiency']:.4f} ± "
        f"{row['efficiency_error']:.4f}, fake rate {row['fake_rate']:.4f} ± "
        f"{row['fake_rate_error']:.4f}",
        flush=True,
    )


def _cpu_s() -> float:
    """CPU time of this process and of those that it waited for, ranks among them."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(who)[:2]) for who in whose)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "judge", "publish"))
    parser.add_argument("--folder", default="runs/physics")
    parser.add_argument("--to", default="trained.safetensors", help="the file that publish writes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank, and of judging")
    parser.add_argument(
        "--events", type=int, nargs=3, default=(80, 100, 6), help="low, high, validation"
    )
    parser.add_argument("--epochs", type=int, nargs=2, default=(8, 8))
    parser.add_argument("--hidden", type=int, default=48)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--pileup", type=int, nargs="+", default=(50, 200), help="of judging")
    parser.add_argument("--held-out", type=int, nargs="+", default=(40, 6), help="events of each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
