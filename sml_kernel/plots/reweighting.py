"""Closure: the reference reweighted by a learned ratio against the numerator, in each feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sml_kernel.plots.canvas import FALSE, GREY, TRUE, holoviews
from sml_kernel.plots.panels import (
    BELOW,
    LEGEND,
    PANELS,
    core,
    frame_of,
    left_out,
    middle,
    of_scorecard,
    points_with_errors,
    ratios_of,
    reach,
    steps,
    with_ratios,
)

if TYPE_CHECKING:
    from sml_kernel.plots.panels import Source

_MOST = 6  # features of a ratio that are shown if none is named


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
        Which; None: the six of each ratio that close worst, and of all these the worst.
    """
    upper: list[Any] = []
    lower: list[Any] = []
    drawn = []
    for name, rows in ratios_of(of_scorecard(source, "closure"), ratio):
        for feature in _worst(rows) if features is None else features:
            bins = rows[rows.feature == feature]
            if bins.empty:
                known = ", ".join(rows.feature.unique())
                raise ValueError(f"no feature {feature!r}; there are {known}")
            drawn.append((name, feature, bins))
    found = len(drawn)
    if found > PANELS:
        drawn = sorted(drawn, key=lambda panel: -_pull(panel[2]))[:PANELS]
    for panel in drawn:
        upper.append(_histograms(*panel, frame_of(len(drawn)), legend=not upper))
        lower.append(_closure_ratio(*panel, frame_of(len(drawn))))
    title = left_out(found, PANELS, "worst features of all ratios")
    return with_ratios(upper, lower).opts(title=title)


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
    filled = bins.numerator.where(bins.numerator > 0)  # no ratio where there is nothing
    axis, band = f"closure of {feature}, {name}", bins.numerator_error / filled
    x, low = steps(bins.low, bins.high, 1 - band)
    high = steps(bins.low, bins.high, 1 + band)[1]
    area = hv.Area((x, low, high), feature, [axis, "upper"])
    figure = area.opts(color=TRUE, alpha=0.3, line_alpha=0)
    figure *= hv.HLine(1).opts(color=GREY, line_width=1)
    values, errors = (bins[each] / filled for each in ("reweighted", "reweighted_error"))
    figure *= points_with_errors(middle(bins), values, errors, feature, axis, FALSE)
    shown = {"xlim": core(bins), "ylim": reach(values, errors), "xlabel": feature}
    return figure.opts(ylabel="rew. / num.", **shown, **(frame | BELOW))


def _worst(rows: pd.DataFrame) -> list[str]:
    known = list(rows.feature.unique())
    pulls = {name: _pull(rows[rows.feature == name]) for name in known}
    worst = sorted(known, key=lambda name: -pulls[name])[:_MOST]
    return [name for name in known if name in worst]


def _pull(bins: pd.DataFrame) -> float:
    """How far a feature is from closing: mean square of its bins' pulls."""
    away = (bins.reweighted - bins.numerator) ** 2
    return float((away / (bins.reweighted_error**2 + bins.numerator_error**2)).mean())
