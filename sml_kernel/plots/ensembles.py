"""Figures of an ensemble of networks: what its scorecard recorded.

Each takes a fit, its folder, the folder of one scorecard, or its rows, and draws one panel a ratio
unless one is named. There are twelve panels at most, as more take minutes to draw and none to look
at; the title then says of how many ratios they are. Nothing is computed from events here, so that a
figure of 10,000 networks on a million events is drawn as soon as one of 40.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sml_kernel.plots.canvas import FALSE, GREY, TRUE, holoviews
from sml_kernel.plots.panels import (
    BELOW,
    LEGEND,
    PANELS,
    around,
    core,
    frame_of,
    left_out,
    of_kind,
    of_scorecard,
    points_with_errors,
    ratios_of,
    reach,
    record_of,
    steps,
    with_ratios,
)

if TYPE_CHECKING:
    from sml_kernel.plots.panels import Source

#: Of folds, told apart by colour-blind readers too (Okabe and Ito).
_FOLDS = (TRUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", FALSE)


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
    ratios = ratios_of(of_scorecard(source, "reliability"), ratio)
    for name, points in ratios[:PANELS]:
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
    return with_ratios(upper, lower).opts(title=left_out(len(ratios), PANELS))


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
    ratios = ratios_of(of_scorecard(source, "losses"), ratio)
    for name, folds in ratios[:PANELS]:
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
    title = left_out(len(ratios), PANELS)
    return hv.Layout(figures).opts(shared_axes=False, title=title).cols(min(3, len(figures)))


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
        maps = {name: rows.iloc[0] for name, rows in ratios_of(found, ratio)}
    figures = []
    frame = frame_of(3 if maps else profiles.subject.nunique())
    ratios, most = ratios_of(profiles, ratio), PANELS // 3 if maps else PANELS
    for name, rows in ratios[:most]:
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
    title = left_out(len(ratios), most)
    return hv.Layout(figures).opts(shared_axes=False, title=title).cols(columns)


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
    ratios = ratios_of(of_scorecard(source, "exact"), ratio)
    for name, bins in ratios[:PANELS]:
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
    title = left_out(len(ratios), PANELS)
    return hv.Layout(figures).opts(shared_axes=False, title=title).cols(min(3, len(figures)))


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
