"""Time to a target: how soon a training is good enough, under rules for the learning rate.

Throughput flatters: with the same batch a rank, more ranks make fewer steps an epoch, and twice the
batch is not twice the progress. So trainings are run until a figure that matters is good enough, at
each number of ranks under each rule for the learning rate as the global batch grows by a factor k:

============ ===== ==========================================================================
``constant``  1    the control
``sqrt``      √k   keeps the noise of a step of an adaptive optimiser (Malladi et al. 2022,
                   arXiv:2205.10287)
``linear``    k    keeps the noise of plain gradient descent (Goyal et al. 2017,
                   arXiv:1706.02677)
============ ===== ==========================================================================

The folder is a run (`sml_kernel.records`) with a row of kind ``point`` for each training that
ended, and the trainings' own run folders below ``trainings``.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from tqdm.auto import tqdm

from sml_kernel import records
from sml_kernel.scaling.results import StudyError

#: By what the learning rate grows when the global batch grows by k.
RULES: dict[str, Callable[[float], float]] = {
    "constant": lambda k: 1.0,
    "sqrt": math.sqrt,
    "linear": lambda k: k,
}


class Training(Protocol):
    """What is trained: for tracking, ``functools.partial(tracking.train, graphs, validation)``.

    Its rows come as it runs; those of kind ``"epoch"`` hold the metric, and their ``seconds``. It
    is ended by leaving the loop over them.
    """

    def __call__(
        self, *, ranks: int, batch: int, learning_rate: float, seed: int, folder: Path
    ) -> Iterable[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class TargetStudy:
    """Trainings to a target, whole or not; figures are read from its records.

    Attributes
    ----------
    run
        The records.
    """

    run: records.Run

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked."""
        return self.run.provenance()["parameters"]

    def points(self) -> pd.DataFrame:
        """A row a planned training: rule, ranks, seed, batch, learning_rate, status, reached …

        ``seconds`` and ``epochs`` are those to the target, nan where it was not reached; ``best``
        is the best value of the metric.
        """
        rows = self.run.rows("point")
        last = {(row.rule, row.ranks, row.seed): row._asdict() for row in rows.itertuples()}
        none = {"status": "pending", "reason": "", "reached": False}
        none |= dict.fromkeys(("seconds", "epochs", "best"), math.nan)
        planned = []
        for point in _planned(self.parameters):
            found = last.get((point["rule"], point["ranks"], point["seed"]), none)
            planned.append({**point, **{name: found[name] for name in none}})
        return pd.DataFrame(planned)

    def table(self) -> pd.DataFrame:
        """Of each rule and number of ranks: how many reached the target, and how soon.

        ``seconds`` is the median over seeds that reached it, ``low`` and ``high`` their smallest
        and largest; ``speed_up`` is over the control with the fewest ranks, ``rank_hours`` what it
        costs.
        """
        points = self.points()
        ended = points[points.status != "pending"]
        groups = ended.groupby(["rule", "ranks"], sort=False)
        seconds = groups.seconds.agg(["median", "min", "max"])
        seconds.columns = pd.Index(["seconds", "low", "high"])
        table = groups.agg(trainings=("seed", "size"), reached=("reached", "sum")).join(seconds)
        table = table.reset_index()
        fewest = table[(table.rule == "constant") & (table.ranks == points.ranks.min())]
        base = float(fewest.seconds.iloc[0]) if len(fewest) else math.nan
        return table.assign(
            speed_up=base / table.seconds, rank_hours=table.ranks * table.seconds / 3600
        )

    def __repr__(self) -> str:
        points, asked = self.points(), self.parameters
        counts = points.status.value_counts()
        states = ", ".join(f"{counts.get(s, 0)} {s}" for s in ("done", "failed", "pending"))
        goal = f"{asked['metric']} {'≥' if asked['higher'] else '≤'} {asked['target']}"
        return f"time to {goal}: {len(points)} trainings planned = {states}; {self.run.folder}"


def time_to_target(
    train: Training,
    *,
    ranks: Sequence[int],
    batch: int,
    learning_rate: float,
    target: float,
    metric: str = "validation_loss",
    higher: bool = False,
    rules: Sequence[str] = tuple(RULES),
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TargetStudy:
    """Train to a target at each number of ranks under each rule, or what is left of it in `folder`.

    Parameters
    ----------
    train
        See `Training`.
    ranks
        Numbers of ranks.
    batch, learning_rate
        With the fewest ranks; the batch grows as the ranks, the learning rate by the rule. With
        the fewest ranks all rules are the same, and ``constant`` alone is trained.
    target, metric, higher
        A training has reached the target at the end of the first epoch whose `metric` is at or
        below it; at or above it if `higher`.
    rules
        Of `RULES`.
    seeds
        Each is a training of its own.
    folder
        A new folder, or that of the same study: trainings that ended are not repeated.

    Returns
    -------
    TargetStudy
        Also if trainings failed: they are recorded with their reason.

    Raises
    ------
    StudyError, RecordError, HeldError
        An unknown rule, no ranks or seeds; the folder holds another study; another process is
        training there.
    """
    unknown = set(rules) - RULES.keys()
    if unknown or not rules or not ranks or not seeds or min(ranks) < 1:
        raise StudyError(
            f"ask for ranks, seeds, and rules of {', '.join(RULES)}"
            + (f", not {', '.join(sorted(unknown))}" if unknown else "")
        )
    asked = {"ranks": sorted(ranks), "batch": batch, "learning_rate": learning_rate}
    asked |= {"target": target, "metric": metric, "higher": higher}
    asked |= {"rules": list(rules), "seeds": list(seeds)}
    study = TargetStudy(records.open_or_start("targets", asked, folder))
    if not (study.points().status == "pending").any() and study.run.status() in ("done", "failed"):
        return study

    def failed() -> int:
        return int((study.points().status == "failed").sum())

    with records.under_way(study.run, "points", failed) as writer:
        points = study.points()
        points = points[points.status == "pending"]
        for point in tqdm(points.to_dict("records"), disable=not progress, unit="training"):
            planned = {name: point[name] for name in _COLUMNS}
            writer.append("point", **planned, **_ended(train, planned, study))
    return study


_COLUMNS = ("rule", "ranks", "seed", "batch", "learning_rate")


def _planned(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    fewest = asked["ranks"][0]
    planned = []
    for seed, ranks, rule in itertools.product(asked["seeds"], asked["ranks"], asked["rules"]):
        grows = ranks / fewest
        if grows == 1 and rule != "constant":
            continue  # the same training as the control's
        rate = asked["learning_rate"] * RULES[rule](grows)
        whole = round(asked["batch"] * grows)
        planned.append(dict(zip(_COLUMNS, (rule, ranks, seed, whole, rate), strict=True)))
    return planned


def _ended(train: Training, point: dict[str, Any], study: TargetStudy) -> dict[str, Any]:
    """Train to the target; what goes wrong is the record of this training and not of the study."""
    asked = study.parameters
    name = f"{point['rule']}-{point['ranks']}-{point['seed']}"
    given = {name: value for name, value in point.items() if name != "rule"}
    found = {"seconds": 0.0, "epochs": 0, "best": math.nan, "reached": False}
    try:
        for row in train(**given, folder=study.run.folder / "trainings" / name):
            if row["kind"] == "epoch":
                _count(found, row, asked)
            if found["reached"]:
                break
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {**found, "seconds": math.nan, "status": "failed", "reason": reason}
    if not found["reached"]:
        found |= {"seconds": math.nan, "epochs": math.nan}
    return {**found, "status": "done", "reason": ""}


def _count(found: dict[str, Any], row: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    value, sign = row[asked["metric"]], 1 if asked["higher"] else -1
    found["seconds"] += row["seconds"]
    found["epochs"] += 1
    if not sign * value <= sign * found["best"]:  # nan is no best
        found["best"] = value
    found["reached"] = bool(sign * value >= sign * asked["target"])
