"""Figures of an ensemble of networks: what its scorecard recorded.

Each takes a fit, its folder, the folder of one scorecard, or its rows, and draws one panel a ratio
unless one is named. Nothing is computed from events here, so that a figure of 10,000 networks on a
million events is drawn as soon as one of 40.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sml_kernel.plots.canvas import FALSE, GREY, TRUE, holoviews
from sml_kernel.plots.panels import (
    BELOW,
    LEGEND,
    around,
    core,
    frame_of,
    middle,
    of_kind,
    points_with_errors,
    reach,
    record_of,
    steps,
    with_ratios,
)

if TYPE_CHECKING:
    from sml_kernel.plots.panels import Source

#: Of folds, told apart by colour-blind readers too (Okabe and Ito).
_FOLDS = (TRUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", FALSE)
_MOST = 6  # features that are shown if none is named


def reliability(source: Source, ratio: str | None = None) -> Any:
    """Observed against predicted share of the numerator, with statistical errors; below, the two
    divided.

    Parameters
    ----------
    source
        See `panels.record_of`.
    ratio
        Its numerator; None: all.
    """
    hv = holoviews()
    upper: list[Any] = []
    lower: list[Any] = []
    ratios = _ratios(_of_scorecard(source, "reliability"), ratio)
    for name, points in ratios:
        x, y, divided = (f"{each} of {name}" for each in ("predicted", "observed", "both"))
        low, high = around(points.predicted, 0.08)
        shown = {"xlim": (low, high), **frame_of(len(ratios))}
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
        lower.append(below.opts(ylim=reach(values, errors), **labels, **(shown | BELOW)))
    return with_ratios(upper, lower)


def closure(source: Source, ratio: str | None = None, features: Sequence[str] | None = None) -> Any:
    """Each feature of the numerator, the reference, and the reference reweighted to the numerator.

    Below, reweighted over numerator, with the statistical band of the numerator.

    Parameters
    ----------
    source
        See `panels.record_of`.
    ratio
        Its numerator; None: all.
    features
        Which; None: the six that close worst, in their order.
    """
    upper: list[Any] = []
    lower: list[Any] = []
    drawn = []
    for name, rows in _ratios(_of_scorecard(source, "closure"), ratio):
        for feature in _worst(rows) if features is None else features:
            bins = rows[rows.feature == feature]
            if bins.empty:
                known = ", ".join(rows.feature.unique())
                raise ValueError(f"no feature {feature!r}; there are {known}")
            drawn.append((name, feature, bins))
    for panel in drawn:
        upper.append(_histograms(*panel, frame_of(len(drawn)), legend=not upper))
        lower.append(_closure_ratio(*panel, frame_of(len(drawn))))
    return with_ratios(upper, lower)


def losses(source: Source, ratio: str | None = None) -> Any:
    """How the held-out losses of all members are distributed, ratio by ratio.

    Folds have colours, as each has held-out events of its own; a line is the loss of the exact
    ratio on these, where it is known. Members that failed or are pending are told in the title.

    Parameters
    ----------
    source
        See `panels.record_of`.
    ratio
        Its numerator; None: all.
    """
    hv = holoviews()
    figures = []
    ratios = _ratios(_of_scorecard(source, "losses"), ratio)
    for name, folds in ratios:
        parts: list[Any] = []
        ends = [edges[place] for edges in folds.edges for place in (0, -1)]
        for row, color in zip(folds.itertuples(), _FOLDS * len(folds), strict=False):
            counts, edges = np.array(row.counts), np.array(row.edges)
            x, y = steps(edges[:-1], edges[1:], counts)
            area = hv.Area((x, y), f"loss {name}", "members", label=f"fold {row.fold:.0f}")
            parts.append(area.opts(color=color, alpha=0.45, line_color=color))
            if pd.notna(row.optimum):
                parts.append(hv.VLine(row.optimum).opts(color=color, line_dash="dashed"))
                ends.append(row.optimum)
        both = hv.Overlay(parts).opts(
            xlim=around(ends, 0.03),
            xlabel="balanced cross-entropy, held out",
            title=f"{name}\n{_states(folds)}",
            show_legend=len(folds) > 1,
            legend_position="top_right",
            legend_opts=LEGEND,
            xticks=4,
            **frame_of(len(ratios)),
        )
        figures.append(both)
    return hv.Layout(figures).opts(shared_axes=False).cols(min(3, len(figures)))


def spread(source: Source, ratio: str | None = None) -> Any:
    """Where the networks disagree: standard deviation over members, relative to the ratio.

    Along the two features in which it changes most, and over both; with one feature, along it.

    Parameters
    ----------
    source
        See `panels.record_of`.
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
    frame = frame_of(3 if maps else profiles.subject.nunique())
    for name, rows in _ratios(profiles, ratio):
        wanted = (maps[name].x, maps[name].y) if name in maps else rows.feature.unique()
        for feature in wanted:
            bins = rows[rows.feature == feature]
            x, y = steps(bins.low, bins.high, 100 * bins.spread)
            curve = hv.Curve((x, y), feature, f"spread {feature} {name}")
            shown: dict[str, Any] = {"xlim": core(bins), "ylim": (0, 1.15 * float(np.nanmax(y)))}
            shown |= {"ylabel": "σ of one network / %", "title": f"{name}\n{_members(rows)}"}
            figures.append(curve.opts(color=TRUE, **shown, **frame))
        if name in maps:
            across = [rows[rows.feature == each] for each in wanted]
            figures.append(_map(name, maps[name], across, frame))
    columns = 3 if maps else min(3, len(figures))
    return hv.Layout(figures).opts(shared_axes=False).cols(columns)


def against_exact(source: Source, ratio: str | None = None) -> Any:
    """The ensemble's log ratio minus the exact one, in bins of the exact one.

    Points are means over events, with their bars the standard deviation over events; the band is
    that over networks, for one of them.

    Parameters
    ----------
    source
        See `panels.record_of`.
    ratio
        Its numerator; None: all.

    Raises
    ------
    ValueError
        The exact ratio is not known.
    """
    hv = holoviews()
    figures = []
    ratios = _ratios(_of_scorecard(source, "exact"), ratio)
    for name, bins in ratios:
        x, y = f"log ratio of {name}", f"difference of {name}"
        band = (bins.exact, -bins.spread, bins.spread)
        figure = hv.Area(band, x, [y, "upper"], label="σ of one network")
        figure = figure.opts(color=GREY, alpha=0.3, line_alpha=0)
        figure *= hv.HLine(0).opts(color=GREY, line_width=1)
        figure *= points_with_errors(
            bins.exact, bins.difference, bins.scatter, x, y, TRUE, label="ensemble"
        )
        highest = 1.5 * float(max(bins.spread.max(), (bins.difference.abs() + bins.scatter).max()))
        figures.append(
            figure.opts(
                title=f"{name}\n{_members(bins)}",
                xlabel="exact log ratio",
                ylabel="learned − exact",
                xlim=around(bins.exact, 0.04),
                ylim=(-highest, highest),
                legend_position="top_right",
                legend_opts=LEGEND,
                **frame_of(len(ratios)),
            )
        )
    return hv.Layout(figures).opts(shared_axes=False).cols(min(3, len(figures)))


def _map(name: str, row: Any, bins: list[pd.DataFrame], frame: dict[str, Any]) -> Any:
    hv = holoviews()
    values = 100 * np.array(row.spread, float).T
    mesh = hv.QuadMesh(
        (np.array(row.x_edges), np.array(row.y_edges), values), [row.x, row.y], "σ / %"
    )
    return mesh.opts(
        cmap="cividis",
        colorbar=True,
        clabel="σ of one network / %",
        xlim=core(bins[0]),
        ylim=core(bins[1]),
        title=f"{name}\nover both",
        **frame,
    )


def _histograms(
    name: str, feature: str, bins: pd.DataFrame, frame: dict[str, Any], legend: bool
) -> Any:
    """Densities of one feature; what is compared has bars, the reference is where it came from."""
    hv = holoviews()
    axis, width = f"density of {feature}, {name}", bins.high - bins.low
    numerator = hv.Area(
        steps(bins.low, bins.high, bins.numerator / width), feature, axis, label="numerator"
    )
    reference = hv.Curve(
        steps(bins.low, bins.high, bins.reference / width), feature, axis, label="reference"
    )
    figure = numerator.opts(color=TRUE, alpha=0.3, line_alpha=0)
    figure *= reference.opts(color=GREY, line_width=2)
    figure *= points_with_errors(
        middle(bins),
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
        xlim=core(bins),
        ylim=(0, (1.75 if legend else 1.25) * highest),
        show_legend=legend,
        legend_position="top_right",
        legend_opts=LEGEND,
        **frame,
    )


def _closure_ratio(name: str, feature: str, bins: pd.DataFrame, frame: dict[str, Any]) -> Any:
    hv = holoviews()
    axis, band = f"closure of {feature}, {name}", bins.numerator_error / bins.numerator
    x, low = steps(bins.low, bins.high, 1 - band)
    high = steps(bins.low, bins.high, 1 + band)[1]
    area = hv.Area((x, low, high), feature, [axis, "upper"])
    figure = area.opts(color=TRUE, alpha=0.3, line_alpha=0)
    figure *= hv.HLine(1).opts(color=GREY, line_width=1)
    values, errors = (bins[each] / bins.numerator for each in ("reweighted", "reweighted_error"))
    figure *= points_with_errors(middle(bins), values, errors, feature, axis, FALSE)
    shown = {"xlim": core(bins), "ylim": reach(values, errors), "xlabel": feature}
    return figure.opts(ylabel="rew. / num.", **shown, **(frame | BELOW))


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
