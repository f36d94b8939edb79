"""What a scaling study has measured, read from its records."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sml_kernel import records
from sml_kernel.scaling import flags, summaries

if TYPE_CHECKING:
    from sml_kernel.scaling.laws import Fit

STATES = ("done", "failed", "pending")


class StudyError(ValueError):
    """A study that cannot be made or taken up again as asked."""


@dataclass(frozen=True)
class Study:
    """A study in its folder, whole or not: every figure is read from its records.

    Attributes
    ----------
    run
        The records.
    """

    run: records.Run

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked: ranks, mode, repeats, and the parameters of what was run."""
        return self.run.provenance()["parameters"]

    def points(self) -> pd.DataFrame:
        """A row a planned point: ``ranks, repeat, status, reason, seconds, attempt``."""
        return _points(self.parameters, self.run.rows("point"))

    def steps(self, *, warm_up: bool = False) -> pd.DataFrame:
        """Rows of the steps of finished points, a row a rank; or of their warm-up alone."""
        rows = self._of_done_points("step")
        if rows.empty:
            return rows
        warming = rows.get("warm_up", pd.Series(False, rows.index)).fillna(False).astype(bool)
        return rows[warming == warm_up].reset_index(drop=True)

    def ranks(self) -> pd.DataFrame:
        """Where the ranks of finished points ran."""
        return self._of_done_points("rank")

    def repeats(self) -> pd.DataFrame:
        """Throughput of each finished point (`summaries.repeats`)."""
        return summaries.repeats(self.steps())

    def table(self, work: str | None = None) -> pd.DataFrame:
        """Throughput, speed-up and efficiency with errors, a row a number of ranks."""
        return summaries.table(self.repeats(), work)

    def phases(self) -> pd.DataFrame:
        """Mean seconds a step in each phase, a row a number of ranks."""
        return summaries.phases(self.steps())

    def losses(self) -> pd.DataFrame:
        """Share of the efficiency that each phase costs; they add up to what is lost."""
        return summaries.losses(self.steps())

    def waiting(self) -> pd.DataFrame:
        """Share of the step that each rank waits for the slowest."""
        return summaries.waiting(self.steps())

    def roofline(self) -> pd.DataFrame:
        """What ranks reach of what their machine allows (`summaries.roofline`)."""
        return summaries.roofline(self.steps(), self.ranks())

    def flags(self) -> pd.DataFrame:
        """What makes the figures doubtful: ``flag, ranks, detail``."""
        return flags.find(self.ranks(), self.steps(), self.repeats(), self._sessions())

    def fit(self, law: str = "usl", work: str | None = None) -> Fit:
        """Fit a law (`sml_kernel.scaling.laws`) to the throughput of all finished points."""
        from sml_kernel.scaling import laws

        repeats = self.repeats()
        column = f"{summaries.unit(repeats, work)}_per_s"
        return laws.fit(law, repeats.ranks.tolist(), repeats[column].tolist())

    def predictions(self) -> pd.DataFrame:
        """What was predicted before the first point; empty if nothing was."""
        return self.run.rows("prediction")

    def __repr__(self) -> str:
        points, asked = self.points(), self.parameters
        counts = points.status.value_counts()
        text = (
            f"{asked['mode']} scaling over {asked['ranks']} ranks: {len(points)} points planned = "
            f"{', '.join(f'{counts.get(state, 0)} {state}' for state in STATES)}; "
            f"records in {self.run.folder}"
        )
        for point in points[points.status == "failed"].head(1).itertuples():
            text += f"\nfirst failure: {point.ranks} ranks, repeat {point.repeat}: {point.reason}"
        return text

    def _of_done_points(self, kind: str) -> pd.DataFrame:
        points, rows = self.points(), self.run.rows(kind)
        if rows.empty:
            return rows
        done = points.attempt[points.status == "done"]
        return rows[rows.attempt.isin(done)].reset_index(drop=True)

    def _sessions(self) -> list[dict[str, Any]]:
        later = sorted((self.run.folder / "sessions").glob("*/run.json"))
        runs = [self.run, *(records.Run(path.parent) for path in later)]
        return [run.provenance() for run in runs]


def open_study(folder: str | os.PathLike[str]) -> Study:
    """The study in a folder, under way or over.

    Raises
    ------
    StudyError
        The run in the folder is not a study.
    """
    run = records.Run(Path(folder))
    kind = run.provenance()["kind"]
    if kind != "scaling":
        raise StudyError(f"{folder} holds a run of kind {kind!r}, not a scaling study")
    return Study(run)


def _points(asked: Mapping[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    last = {(row.ranks, row.repeat): row for row in rows.itertuples()}
    pending = pd.Series({"status": "pending", "reason": "", "seconds": math.nan, "attempt": ""})
    planned = []
    for repeat in range(asked["repeats"]):
        for ranks in asked["ranks"]:
            row = last.get((ranks, repeat), pending)
            kept = {name: getattr(row, name) for name in pending.index}
            planned.append({"ranks": ranks, "repeat": repeat, **kept})
    return pd.DataFrame(planned)
