"""What figures of ensembles and measurements share: rows of a record, panels that go together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sml_kernel import records
from sml_kernel.plots.canvas import FRAME, holoviews

if TYPE_CHECKING:
    from typing import TypeAlias

    from sml_kernel.sbi import Fit, Inference

    #: What rows are taken from.
    Source: TypeAlias = "Fit | Inference | records.Run | pd.DataFrame | str | os.PathLike[str]"

#: Of a legend inside a frame.
LEGEND = {"spacing": 0, "padding": 4, "glyph_height": 14, "background_fill_alpha": 0.6}
#: Of a panel with ratios below another.
BELOW = {"frame_height": 75, "yticks": 3, "title": ""}

#: Drawn at most: more take minutes to draw, and none to look at.
PANELS = 12


def record_of(source: Source, kind: str, below: str) -> pd.DataFrame:
    """All rows of one record: of a fit the newest that has rows of a kind.

    Parameters
    ----------
    source
        Rows; or an inference, a run, a fit, or the folder of one of these.
    below
        Where a fit has such records: ``"scorecards"``, ``"inferences"`` or ``"coverages"``.

    Raises
    ------
    ValueError
        There are none.
    """
    if isinstance(source, pd.DataFrame):
        of_kind(source, kind)
        return source
    folder = Path(source) if isinstance(source, str | os.PathLike) else source.folder
    for each in [folder, *sorted(folder.glob(f"{below}/[0-9]*"), reverse=True)]:
        rows = records.read(each)
        if len(rows) and (rows.kind == kind).any():
            return rows
    raise ValueError(
        f"no row of kind {kind!r} in {folder}, nor in {below} there: fit.scorecard(), "
        "fit.infer(…) and fit.coverage(…) write them"
    )


def of_kind(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind; where a number is missing there is nan or None.

    Raises
    ------
    ValueError
        There are none.
    """
    found = rows[rows.kind == kind] if len(rows) else rows
    if found.empty:
        raise ValueError(f"these records have no row of kind {kind!r}")
    return found


def points_with_errors(
    x: Any, y: Any, error: Any, across: str, up: str, color: str, label: str = ""
) -> Any:
    """Points with bars, all of one colour; `across` and `up` name the axes."""
    hv = holoviews()
    x, y, error = (np.asarray(each, float) for each in (x, y, error))
    bars = hv.Segments((x, y - error, x, y + error), [across, up, "end of x", "end of y"])
    dots = hv.Scatter((x, y), across, up, label=label)
    return bars.opts(color=color, line_width=1.5) * dots.opts(color=color, size=6)


def steps(low: Any, high: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """The outline of a histogram, whose bins may have gaps."""
    return np.column_stack([low, high]).ravel(), np.repeat(np.asarray(values, float), 2)


def core(bins: pd.DataFrame) -> tuple[float, float]:
    """Limits that cut the outermost bins, which reach to the farthest event, to a fair size."""
    low, high = float(bins.low.min()), float(bins.high.max())
    if len(bins) < 4:
        return low, high
    first, last = float(bins.high.min()), float(bins.low.max())
    beyond = 0.3 * (last - first)
    return max(low, first - beyond), min(high, last + beyond)


def middle(bins: pd.DataFrame) -> pd.Series:
    """Where a bin's point is: in the middle of what is shown of it."""
    low, high = core(bins)
    return (bins.low.clip(lower=low) + bins.high.clip(upper=high)) / 2


def around(values: Any, margin: float) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    margin = max(margin * (high - low), 1e-6)
    return low - margin, high + margin


def reach(values: pd.Series, errors: pd.Series) -> tuple[float, float]:
    """Limits around 1, wide enough for all points, and no wider than ± 1."""
    away = float(np.nanmax((values - 1).abs() + errors))
    away = min(max(1.1 * away, 0.02), 1.0)
    return 1 - away, 1 + away


def frame_of(panels: int) -> dict[str, Any]:
    size = FRAME if panels < 3 else {"frame_width": 250, "frame_height": 170}
    return {**size, "fontsize": {"title": "9pt", "labels": "9pt", "legend": "8pt"}}


def with_ratios(upper: list[Any], lower: list[Any]) -> Any:
    """Panels in rows of three, each with its own panel below."""
    hv = holoviews()
    columns = min(3, len(upper))
    figures: list[Any] = []
    for start in range(0, len(upper), columns):
        for row in (upper, lower):
            some = row[start : start + columns]
            figures += [*some, *(hv.Empty() for _ in range(columns - len(some)))]
    return hv.Layout(figures).opts(shared_axes=True).cols(columns)


def of_scorecard(source: Source, kind: str) -> pd.DataFrame:
    """Rows of one kind of a scorecard, see `record_of`."""
    return of_kind(record_of(source, kind, "scorecards"), kind)


def ratios_of(rows: pd.DataFrame, ratio: str | None) -> list[tuple[str, pd.DataFrame]]:
    """Name and rows of each ratio, or of the one with this numerator."""
    found = rows if ratio is None else rows[rows.subject == ratio]
    if found.empty:
        known = ", ".join(rows.subject.unique())
        raise ValueError(f"no ratio of {ratio!r} is recorded; there are {known}")
    groups = found.groupby(["subject", "against"], sort=False)
    return [(f"{subject} / {against}", each) for (subject, against), each in groups]


def left_out(found: int, most: int, what: str = "ratios, the first") -> str:
    """A title that says what is not drawn; empty where all is."""
    return f"{most} of {found} {what}: name others by ratio=" if found > most else ""
