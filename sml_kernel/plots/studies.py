"""Figures of scaling studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sml_kernel.plots.canvas import FALSE, FRAME, GREY, TRUE, holoviews
from sml_kernel.scaling.results import Study
from sml_kernel.scaling.targets import RULES, TargetStudy

#: Of logarithmic axes; bokeh labels whole decades only.
_TICKS = [m * 10**e for e in range(-2, 6) for m in (1, 2, 5)]


def scaling(study: Study, fit: str | None = None, work: str | None = None) -> Any:
    """Speed-up and efficiency against ideal, where the time of a step goes, who waits.

    Parameters
    ----------
    study
        From `sml_kernel.scaling.study` or `open_study`, whole or under way.
    fit
        A law whose curve and 68 % band are drawn over the numbers of ranks that were measured:
        ``"amdahl"`` needs three of them, ``"usl"`` five. None: no curve.
    work
        Measure of throughput: ``"edges"``, ``"graphs"`` or ``"hits"``; None takes the first there.

    Raises
    ------
    ValueError
        No point is done yet; too few numbers of ranks for the law.
    """
    hv = holoviews()
    if study.steps().empty:
        raise ValueError(f"nothing to draw yet: {study}")
    table = study.table(work)
    band = (
        None
        if fit is None
        else study.fit(fit, work).at(np.linspace(*_ends(table.ranks), 60).tolist())
    )
    figures: list[Any] = [
        _scaled(table, "speed_up", "speed-up", band, study.predictions()),
        _scaled(table, "efficiency", "efficiency", band, study.predictions()),
        _phases(study.phases()),
    ]
    if "wait_s" in study.steps():
        figures.append(_waiting(study.waiting()))
    roof = study.roofline()
    if len(roof):
        figures.append(_roofline(roof))
    title = f"{study.parameters['mode'].capitalize()} scaling"
    return hv.Layout(figures).opts(shared_axes=False, title=title).cols(2)


def targets(study: TargetStudy) -> Any:
    """Time to the target against ranks, a line a rule; bars from the soonest to the latest seed.

    Parameters
    ----------
    study
        From `sml_kernel.scaling.time_to_target`.

    Raises
    ------
    ValueError
        No training has reached the target yet.
    """
    hv = holoviews()
    table = study.table()
    base, shown = table[table.rule == "constant"].head(1), table.dropna(subset="seconds")
    if shown.empty:
        raise ValueError(f"no training has reached the target: {study}")
    parts: list[Any] = []
    for rule, color in zip(RULES, (GREY, TRUE, FALSE), strict=True):
        mine = shown[shown.rule == rule]
        line = mine if rule == "constant" else pd.concat([base.dropna(subset="seconds"), mine])
        below, above = mine.seconds - mine.low, mine.high - mine.seconds
        bars = (mine.ranks, mine.seconds, below, above)
        parts.append(hv.Curve(line, "ranks", "seconds", label=rule).opts(color=color))
        parts.append(hv.ErrorBars(bars, "ranks", ["seconds", "below", "above"]).opts(color=color))
        parts.append(hv.Scatter(mine, "ranks", "seconds").opts(color=color, size=8))
    asked = study.parameters
    goal = f"{asked['metric']} {'≥' if asked['higher'] else '≤'} {asked['target']:g}"
    return hv.Overlay(parts).opts(
        title=f"Time to {goal}, by the rule of the learning rate",
        ylabel="seconds to the target",
        xticks=sorted(set(shown.ranks)),
        xlim=_with_margin(shown.ranks),
        ylim=(0, 1.1 * float(shown.high.max())),
        legend_position="right",
        **FRAME,
    )


def _scaled(
    table: pd.DataFrame, name: str, label: str, band: pd.DataFrame | None, predicted: pd.DataFrame
) -> Any:
    """Points with errors, the ideal, the fitted law and what was predicted."""
    hv = holoviews()
    base, reference = int(table.base.iloc[0]), float(table.throughput.iloc[0])
    ends = np.array(_ends(table.ranks))
    # Of throughput: over that of one rank, which is the base's by its ranks; and that a rank
    over_ranks = name == "efficiency"

    def scaled(throughput: Any, ranks: Any) -> np.ndarray:
        relative = np.asarray(throughput) / reference * base
        return relative / np.asarray(ranks) if over_ranks else relative

    ideal = np.ones(2) if over_ranks else ends
    parts = [hv.Curve((ends, ideal), "ranks", name, label="ideal").opts(color=GREY)]
    if band is not None:
        low, middle, high = (scaled(band[k], band.ranks) for k in ("lower", "throughput", "upper"))
        area = hv.Area((band.ranks, low, high), "ranks", [name, "upper"], label="68 % band")
        parts.append(area.opts(color=TRUE, alpha=0.2, line_alpha=0))
        parts.append(hv.Curve((band.ranks, middle), "ranks", name, label="law").opts(color=TRUE))
    errors = table.dropna(subset=f"{name}_error")
    parts.append(hv.ErrorBars(errors, "ranks", [name, f"{name}_error"]).opts(color=TRUE))
    dots = hv.Scatter(table, "ranks", name, label="measured")
    parts.append(dots.opts(color=TRUE, size=8))
    if not predicted.empty:
        there = predicted[predicted.ranks.isin(table.ranks)]
        foretold = (there.ranks, scaled(there.throughput, there.ranks))
        crosses = hv.Scatter(foretold, "ranks", name, label="predicted")
        parts.append(crosses.opts(color=FALSE, marker="x", size=10, line_width=2))
    return hv.Overlay(parts).opts(
        ylabel=label,
        xticks=table.ranks.tolist(),
        ylim=(0, None),
        xlim=_with_margin(table.ranks),
        legend_position="right",  # beside the figure: inside it would cover bands
        title=f"{label.capitalize()} from {table.unit.iloc[0].replace('_per_s', '/s')}",
        **FRAME,
    )


def _phases(phases: pd.DataFrame) -> Any:
    times = phases.set_index("ranks").drop(columns="step_s").mul(1000)
    times = times.rename(columns=lambda name: name.removesuffix("_s")).clip(lower=0)
    times.index = times.index.astype(str)
    return times.hvplot.bar(
        stacked=True,
        xlabel="ranks",
        ylabel="ms a step, mean over ranks",
        legend="right",
        ylim=(0, 1.05 * float(times.sum(axis=1).max())),
        cmap="Category10",
        title="Where a step goes",
        **FRAME,
    )


def _waiting(waiting: pd.DataFrame) -> Any:
    shown = waiting.assign(percent=100 * waiting.waiting).astype({"ranks": str, "rank": str})
    return shown.hvplot.bar(
        x="ranks",
        y="percent",
        by="rank",
        legend=False,
        color=TRUE,
        rot=0,
        ylabel="waiting / % of the step",
        xlabel="ranks, and which of them",
        title="Waiting for the slowest",
        **FRAME,
    )


def _roofline(table: pd.DataFrame) -> Any:
    """Reached against allowed, a point and a roof a number of ranks, in GFLOP/s a rank."""
    hv = holoviews()
    reach = np.geomspace(float(table.intensity.min()) / 30, float(table.intensity.max()) * 4, 60)
    parts: list[Any] = []
    for row in table.itertuples():
        roof = np.minimum(reach * row.copy_bytes_per_s, row.matmul_flops_per_s) / 1e9
        shade = TRUE if row.ranks == table.ranks.min() else FALSE
        label = f"{row.ranks} ranks: {row.share:.0%} of the roof"
        line = hv.Curve((reach, roof), "intensity", "rate", label=label)
        dot = hv.Scatter(([row.intensity], [row.flops_per_s / 1e9]), "intensity", "rate")
        parts += [line.opts(color=shade), dot.opts(color=shade, size=10)]
    lowest = float(table.flops_per_s.min()) / 1e9
    return hv.Overlay(parts).opts(
        logx=True,
        logy=True,
        xticks=_TICKS,
        yticks=_TICKS,
        ylim=(lowest / 4, 2 * float(table.matmul_flops_per_s.max()) / 1e9),
        xlabel="operations a byte that must be moved",
        ylabel="GFLOP/s a rank",
        legend_position="right",
        title="Roofline: points reached, lines allowed",
        **FRAME,
    )


def _ends(ranks: pd.Series) -> tuple[float, float]:
    return float(ranks.min()), float(ranks.max())


def _with_margin(ranks: pd.Series) -> tuple[float, float]:
    """Limits that leave room for the bars of the first and the last point."""
    first, last = _ends(ranks)
    margin = 0.05 * (last - first) + 0.1
    return first - margin, last + margin
