"""Figures of an ensemble of networks: what its scorecard recorded.

Each takes a fit, its folder, the folder of one scorecard, or its rows, and draws one panel a ratio
unless one is named. Nothing is computed from events here, so that a figure of 10,000 networks on a
million events is drawn as soon as one of 40.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sml_kernel import records
from sml_kernel.plots.canvas import FALSE, GREY, TRUE, holoviews

if TYPE_CHECKING:
    from typing import TypeAlias

    from sml_kernel.sbi import Fit, Inference

    #: What rows are taken from.
    Source: TypeAlias = "Fit | Inference | records.Run | pd.DataFrame | str | os.PathLike[str]"

#: Of folds, told apart by colour-blind readers too (Okabe and Ito).
_FOLDS = (TRUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", FALSE)
_SMALL = {"frame_width": 250, "frame_height": 170}
_BELOW = {"frame_height": 75, "yticks": 3, "title": ""}  # of a panel with ratios below another
_LEGEND = {"spacing": 0, "padding": 4, "glyph_height": 14, "background_fill_alpha": 0.6}
_MOST = 6  # features that are shown if none is named


def record_of(source: Source, kind: str, below: str) -> pd.DataFrame:
    """All rows of one record: of a fit the newest that has rows of a kind.

    Parameters
    ----------
    source
        Rows; or an inference, a run, a fit, or the folder of one of these.
    below
        Where a fit has such records: ``"scorecards"`` or ``"inferences"``.

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
        f"no row of kind {kind!r} in {folder}, nor in {below} there: fit.scorecard() and "
        "fit.infer(…) write them"
    )


def of_kind(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind, without the columns of others.

    Raises
    ------
    ValueError
        There are none.
    """
    found = rows[rows.kind == kind] if len(rows) else rows
    if found.empty:
        raise ValueError(f"these records have no row of kind {kind!r}")
    return found.dropna(axis="columns", how="all")


def reliability(source: Source, ratio: str | None = None) -> Any:
    """Observed against predicted share of the numerator, with statistical errors; below, the two
    divided.

    Parameters
    ----------
    source
        See `record_of`.
    ratio
        Its numerator; None: all.
    """
    hv = holoviews()
    upper: list[Any] = []
    lower: list[Any] = []
    for name, points in _ratios(_of_scorecard(source, "reliability"), ratio):
        x, y, divided = (f"{each} of {name}" for each in ("predicted", "observed", "both"))
        low, high = _around(points.predicted, 0.08)
        shown = {"xlim": (low, high), **_frame()}
        figure = hv.Curve(([0, 1], [0, 1]), x, y).opts(color=GREY)
        figure *= points_with_errors(points.predicted, points.observed, points.error, x, y, TRUE)
        title = f"{name}\n{_members(points)}"
        upper.append(
            figure.opts(title=title, xlabel="", ylabel="observed share", ylim=(low, high), **shown)
        )
        values, errors = (points[each] / points.predicted for each in ("observed", "error"))
        below = hv.HLine(1).opts(color=GREY, line_width=1)
        below *= points_with_errors(points.predicted, values, errors, x, divided, TRUE)
        labels = {"xlabel": "predicted share of the numerator", "ylabel": "obs. / pred."}
        lower.append(below.opts(ylim=_reach(values, errors), **labels, **(shown | _BELOW)))
    return _pairs(upper, lower)


def closure(source: Source, ratio: str | None = None, features: Sequence[str] | None = None) -> Any:
    """Each feature of the numerator, the reference, and the reference reweighted to the numerator.

    Below, reweighted over numerator, with the statistical band of the numerator.

    Parameters
    ----------
    source
        See `record_of`.
    ratio
        Its numerator; None: all.
    features
        Which; None: the six that close worst, in their order.
    """
    upper: list[Any] = []
    lower: list[Any] = []
    for name, rows in _ratios(_of_scorecard(source, "closure"), ratio):
        chosen = _worst(rows) if features is None else list(features)
        for feature in chosen:
            bins = rows[rows.feature == feature]
            if bins.empty:
                known = ", ".join(rows.feature.unique())
                raise ValueError(f"no feature {feature!r}; there are {known}")
            legend = not upper
            upper.append(_histograms(name, feature, bins, legend))
            lower.append(_closure_ratio(name, feature, bins))
    return _pairs(upper, lower)


def losses(source: Source, ratio: str | None = None) -> Any:
    """How the held-out losses of all members are distributed, ratio by ratio.

    Folds have colours, as each has held-out events of its own; a line is the loss of the exact
    ratio on these, where it is known. Members that failed or are pending are told in the title.

    Parameters
    ----------
    source
        See `record_of`.
    ratio
        Its numerator; None: all.
    """
    hv = holoviews()
    figures = []
    for name, folds in _ratios(_of_scorecard(source, "losses"), ratio):
        parts: list[Any] = []
        for row, color in zip(folds.itertuples(), _FOLDS * len(folds), strict=False):
            counts, edges = np.array(row.counts), np.array(row.edges)
            x, y = _steps(edges[:-1], edges[1:], counts)
            area = hv.Area((x, y), f"loss {name}", "members", label=f"fold {row.fold:.0f}")
            parts.append(area.opts(color=color, alpha=0.45, line_color=color))
            if "optimum" in folds and np.isfinite(row.optimum):
                parts.append(hv.VLine(row.optimum).opts(color=color, line_dash="dashed"))
        both = hv.Overlay(parts).opts(
            xlabel="balanced cross-entropy, held out",
            title=f"{name}\n{_states(folds)}",
            show_legend=len(folds) > 1,
            legend_position="top_right",
            **_frame(),
        )
        figures.append(both)
    return hv.Layout(figures).opts(shared_axes=False).cols(min(3, len(figures)))


def spread(source: Source, ratio: str | None = None) -> Any:
    """Where the networks disagree: standard deviation over members, relative to the ratio.

    Along the two features in which it changes most, and over both; with one feature, along it.

    Parameters
    ----------
    source
        See `record_of`.
    ratio
        Its numerator; None: all.
    """
    hv = holoviews()
    record = record_of(source, "spread", "scorecards")
    profiles = of_kind(record, "spread")
    maps = {}
    if profiles.feature.nunique() > 1:
        found = of_kind(record, "spread_map")
        maps = {name: rows.iloc[0] for name, rows in _ratios(found, ratio)}
    figures = []
    for name, rows in _ratios(profiles, ratio):
        wanted = (maps[name].x, maps[name].y) if name in maps else rows.feature.unique()
        for feature in wanted:
            bins = rows[rows.feature == feature]
            x, y = _steps(bins.low, bins.high, 100 * bins.spread)
            curve = hv.Curve((x, y), feature, f"spread {feature} {name}")
            shown: dict[str, Any] = {"xlim": _core(bins), "ylim": (0, 1.15 * float(np.nanmax(y)))}
            title = f"{name}\n{_members(rows)}"
            figures.append(
                curve.opts(
                    color=TRUE, ylabel="σ of one network / %", title=title, **shown, **_frame()
                )
            )
        if name in maps:
            figures.append(_map(name, maps[name], [rows[rows.feature == each] for each in wanted]))
    columns = 3 if maps else min(3, len(figures))
    return hv.Layout(figures).opts(shared_axes=False).cols(columns)


def against_exact(source: Source, ratio: str | None = None) -> Any:
    """The ensemble's log ratio minus the exact one, in bins of the exact one.

    Points are means over events, with their bars the standard deviation over events; the band is
    that over networks, for one of them.

    Parameters
    ----------
    source
        See `record_of`.
    ratio
        Its numerator; None: all.

    Raises
    ------
    ValueError
        The exact ratio is not known.
    """
    hv = holoviews()
    figures = []
    for name, bins in _ratios(_of_scorecard(source, "exact"), ratio):
        x, y = f"log ratio of {name}", f"difference of {name}"
        band = (bins.exact, -bins.spread, bins.spread)
        figure = hv.Area(band, x, [y, "upper"], label="σ of one network")
        figure = figure.opts(color=GREY, alpha=0.3, line_alpha=0)
        figure *= hv.HLine(0).opts(color=GREY, line_width=1)
        figure *= points_with_errors(
            bins.exact, bins.difference, bins.scatter, x, y, TRUE, label="ensemble"
        )
        reach = 1.25 * float(max(bins.spread.max(), (bins.difference.abs() + bins.scatter).max()))
        figures.append(
            figure.opts(
                title=f"{name}\n{_members(bins)}",
                xlabel="exact log ratio",
                ylabel="learned − exact",
                ylim=(-reach, reach),
                legend_position="top",
                legend_opts=_LEGEND,
                **_frame(),
            )
        )
    return hv.Layout(figures).opts(shared_axes=False).cols(min(3, len(figures)))


def _map(name: str, row: Any, bins: list[pd.DataFrame]) -> Any:
    hv = holoviews()
    values = 100 * np.array(row.spread, float).T
    mesh = hv.QuadMesh(
        (np.array(row.x_edges), np.array(row.y_edges), values), [row.x, row.y], "σ / %"
    )
    return mesh.opts(
        cmap="cividis",
        colorbar=True,
        clabel="σ of one network / %",
        xlim=_core(bins[0]),
        ylim=_core(bins[1]),
        title=f"{name}\nover both",
        **_frame(),
    )


def _histograms(name: str, feature: str, bins: pd.DataFrame, legend: bool) -> Any:
    """Densities of one feature; what is compared has bars, the reference is where it came from."""
    hv = holoviews()
    axis, width = f"density of {feature}, {name}", bins.high - bins.low
    numerator = hv.Area(
        _steps(bins.low, bins.high, bins.numerator / width), feature, axis, label="numerator"
    )
    reference = hv.Curve(
        _steps(bins.low, bins.high, bins.reference / width), feature, axis, label="reference"
    )
    figure = numerator.opts(color=TRUE, alpha=0.3, line_alpha=0)
    figure *= reference.opts(color=GREY, line_width=2)
    figure *= points_with_errors(
        _middle(bins),
        bins.reweighted / width,
        bins.reweighted_error / width,
        feature,
        axis,
        FALSE,
        label="reference, reweighted",
    )
    highest = float(max((bins[each] / width).max() for each in ("numerator", "reference")))
    return figure.opts(
        title=name,
        xlabel="",
        ylabel="density",
        xlim=_core(bins),
        ylim=(0, (1.75 if legend else 1.25) * highest),
        show_legend=legend,
        legend_position="top_right",
        legend_opts=_LEGEND,
        **_frame(),
    )


def _closure_ratio(name: str, feature: str, bins: pd.DataFrame) -> Any:
    hv = holoviews()
    axis, band = f"closure of {feature}, {name}", bins.numerator_error / bins.numerator
    x, low = _steps(bins.low, bins.high, 1 - band)
    high = _steps(bins.low, bins.high, 1 + band)[1]
    area = hv.Area((x, low, high), feature, [axis, "upper"])
    figure = area.opts(color=TRUE, alpha=0.3, line_alpha=0)
    figure *= hv.HLine(1).opts(color=GREY, line_width=1)
    values, errors = (bins[each] / bins.numerator for each in ("reweighted", "reweighted_error"))
    figure *= points_with_errors(_middle(bins), values, errors, feature, axis, FALSE)
    shown = {"xlim": _core(bins), "ylim": _reach(values, errors), "xlabel": feature}
    return figure.opts(ylabel="rew. / num.", **shown, **(_frame() | _BELOW))


def points_with_errors(
    x: Any, y: Any, error: Any, across: str, up: str, color: str, label: str = ""
) -> Any:
    """Points with bars, all of one colour; `across` and `up` name the axes."""
    hv = holoviews()
    x, y, error = (np.asarray(each, float) for each in (x, y, error))
    bars = hv.Segments((x, y - error, x, y + error), [across, up, "end of x", "end of y"])
    dots = hv.Scatter((x, y), across, up, label=label)
    return bars.opts(color=color, line_width=1.5) * dots.opts(color=color, size=6)


def _of_scorecard(source: Source, kind: str) -> pd.DataFrame:
    return of_kind(record_of(source, kind, "scorecards"), kind)


def _ratios(rows: pd.DataFrame, ratio: str | None) -> list[tuple[str, pd.DataFrame]]:
    """Name and rows of each ratio, or of the one with this numerator."""
    found = rows if ratio is None else rows[rows.subject == ratio]
    if found.empty:
        known = ", ".join(rows.subject.unique())
        raise ValueError(f"no ratio of {ratio!r} is recorded; there are {known}")
    groups = found.groupby(["subject", "against"], sort=False)
    return [(f"{subject} / {against}", each) for (subject, against), each in groups]


def _worst(rows: pd.DataFrame) -> list[str]:
    known = list(rows.feature.unique())
    away = (rows.reweighted - rows.numerator) ** 2
    pulls = away / (rows.reweighted_error**2 + rows.numerator_error**2)
    worst = pulls.groupby(rows.feature).mean().nlargest(_MOST).index
    return [name for name in known if name in worst]


def _members(rows: pd.DataFrame) -> str:
    return f"an event by {int(rows.members.iloc[0]):,} networks"


def _states(folds: pd.DataFrame) -> str:
    planned, failed, pending, infinite = (
        int(folds[each].sum()) for each in ("planned", "failed", "pending", "infinite")
    )
    done, beyond = planned - failed - pending, int(folds.below.sum() + folds.above.sum())
    text = f"{done:,} of {planned:,} networks, {failed:,} failed"
    text += f", {pending:,} pending" if pending else ""
    text += f", {infinite:,} not finite" if infinite else ""
    return text + (f", {beyond:,} beyond the axis" if beyond else "")


def _steps(low: Any, high: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """The outline of a histogram, whose bins may have gaps."""
    return np.column_stack([low, high]).ravel(), np.repeat(np.asarray(values, float), 2)


def _core(bins: pd.DataFrame) -> tuple[float, float]:
    """Limits that cut the outermost bins, which reach to the farthest event, to a fair size."""
    low, high = float(bins.low.min()), float(bins.high.max())
    if len(bins) < 4:
        return low, high
    first, last = float(bins.high.min()), float(bins.low.max())
    beyond = 0.3 * (last - first)
    return max(low, first - beyond), min(high, last + beyond)


def _middle(bins: pd.DataFrame) -> pd.Series:
    """Where a bin's point is: in the middle of what is shown of it."""
    low, high = _core(bins)
    return (bins.low.clip(lower=low) + bins.high.clip(upper=high)) / 2


def _around(values: pd.Series, margin: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = max(margin * (high - low), 1e-3)
    return low - margin, high + margin


def _reach(values: pd.Series, errors: pd.Series) -> tuple[float, float]:
    """Limits around 1, wide enough for all points, and no wider than ± 1."""
    away = float(np.nanmax((values - 1).abs() + errors))
    away = min(max(1.1 * away, 0.02), 1.0)
    return 1 - away, 1 + away


def _frame() -> dict[str, Any]:
    return {**_SMALL, "fontsize": {"title": "9pt", "labels": "9pt", "legend": "8pt"}}


def _pairs(upper: list[Any], lower: list[Any]) -> Any:
    """Panels in rows of three, each with its own panel below."""
    hv = holoviews()
    columns = min(3, len(upper))
    figures: list[Any] = []
    for start in range(0, len(upper), columns):
        for row in (upper, lower):
            some = row[start : start + columns]
            figures += [*some, *(hv.Empty() for _ in range(columns - len(some)))]
    return hv.Layout(figures).opts(shared_axes=True).cols(columns)
