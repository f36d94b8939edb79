"""Figures of a measurement: what an inference recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sml_kernel.plots.canvas import FALSE, FRAME, GREY, TRUE, holoviews
from sml_kernel.plots.panels import of_kind, points_with_errors, record_of

if TYPE_CHECKING:
    from sml_kernel.plots.panels import Source

_METHODS = {"wilks": TRUE, "neyman": FALSE}
_VARIANTS = {"plain": TRUE, "spread": FALSE}
_WIDE = 460
_MOST = 20  # nuisances that are shown


def likelihood_scan(source: Source) -> Any:
    """The profile likelihood ratio with what it is cut by, and the intervals that follow, below.

    Parameters
    ----------
    source
        An inference, a fit (its newest one), the folder of either, or rows.
    """
    hv = holoviews()
    record = record_of(source, "measurement", "inferences")
    whole, scan = of_kind(record, "measurement").iloc[-1], of_kind(record, "scan")
    mu, q = _smooth(scan, whole.value)
    name = whole.parameter
    parts = [hv.Curve((mu, q), name, "q", label="profile likelihood ratio").opts(color=GREY)]
    parts.append(hv.Scatter((scan.mu, scan.q), name, "q").opts(color=GREY, size=4))
    ends = [float(scan.mu.min()), float(scan.mu.max())]
    cut = hv.Curve((ends, [whole.threshold] * 2), name, "q", label=f"Wilks, {whole.level:.2%}")
    parts.append(cut.opts(color=TRUE, line_dash="dashed"))
    if (record.kind == "belt").any():
        belt = of_kind(record, "belt")
        band = (belt.mu, belt.critical_low, belt.critical_high)
        area = hv.Area(band, name, ["q", "upper"])
        parts.append(area.opts(color=FALSE, alpha=0.25, line_alpha=0))
        curve = hv.Curve((belt.mu, belt.critical), name, "q", label="Neyman, from toys")
        parts.append(curve.opts(color=FALSE))
    lost = int(scan.q.isna().sum())
    error = f"± {whole.error:.2g}" if pd.notna(whole.error) else "without an error"
    title = f"{name} = {whole.value:.4g} {error}, networks' share {whole.spread:.2g}"
    title += f"\n{lost} strengths without a fit" if lost else f"\n{whole.members}"
    upper = hv.Overlay(parts).opts(
        title=title,
        xlabel="",
        ylabel="−2 ln L / L(best)",
        xlim=(ends[0], ends[1]),
        ylim=(0, 1.1 * float(np.nanmax(q))),
        legend_position="top_right",
        legend_opts={"location": "top_center", "background_fill_alpha": 0.6},
        fontsize={"title": "10pt", "legend": "8pt"},
        **(FRAME | {"frame_width": _WIDE}),
    )
    lower = _intervals(of_kind(record, "interval"), name).opts(xlim=(ends[0], ends[1]))
    return (upper + lower).opts(shared_axes=False).cols(1)


def pulls(source: Source) -> Any:
    """Pulls of the nuisances, with what is left of their uncertainty; beside it, their impact.

    Parameters
    ----------
    source
        An inference, a fit (its newest one), the folder of either, or rows.

    Raises
    ------
    ValueError
        The inference had no nuisances.
    """
    hv = holoviews()
    record = record_of(source, "impact", "inferences")
    name = of_kind(record, "measurement").iloc[-1].parameter
    rows = of_kind(record, "impact").head(_MOST)
    rows = rows.assign(place=np.arange(len(rows))[::-1])
    frame = FRAME | {"frame_height": max(110, 30 * len(rows))}
    axis: dict[str, Any] = {
        "yticks": list(zip(rows.place, rows.parameter, strict=True)),
        "ylabel": "",
    }
    axis |= {"ylim": (-0.7, len(rows) - 0.3), "fontsize": {"title": "10pt", "legend": "8pt"}}
    left = _pulls(rows).opts(
        title="Pull, and error after the fit",
        xlabel="standard deviations before the fit",
        **axis,
        **frame,
    )
    parts: list[Any] = [hv.VLine(0).opts(color=GREY, line_width=1)]
    for side, color in (("up", TRUE), ("down", FALSE)):
        if rows[side].notna().any():
            parts.append(_bars(rows[side], rows.place).opts(color=color, alpha=0.7, line_alpha=0))
    right = hv.Overlay(parts).opts(
        title=f"Impact on {name}: nuisance up blue, down orange",
        xlabel=f"change of {name}",
        xticks=4,
        **axis,
        **frame,
    )
    return (left + right).opts(shared_axes=False).cols(2)


def coverage(source: Source) -> Any:
    """Share of toys whose interval holds the true value: each ensemble, their mean, and the band.

    The band is two errors about the level, from the scatter between ensembles where there are
    several (toys of one are alike), binomial for one.

    Parameters
    ----------
    source
        Rows of `sbi.Coverage.rows`, or what has them in its record.
    """
    hv = holoviews()
    record = record_of(source, "coverage", "coverages")
    rows, single = of_kind(record, "coverage"), of_kind(record, "coverage_ensemble")
    level, first = float(rows.level.iloc[0]), rows.iloc[0]
    parts: list[Any] = []
    for place, row in enumerate(rows.itertuples()):
        mine = single[(single.variant == row.variant) & (single["at"] == row.at)]
        parts += _covered(row, mine.fraction.to_numpy(float), place)
    line = hv.Curve(([-0.6, len(rows) - 0.4], [level] * 2), "x", "y")
    parts.append(line.opts(color=GREY, line_dash="dashed"))
    verdicts = {True: "covers", False: "does not cover"}
    labels = [
        f"{_NAMES[row.variant]}, at {row.at:g}: {verdicts[bool(row.passed)]}"
        for row in rows.itertuples()
    ]
    several = "s" if first.ensembles > 1 else ""
    made = f"{first.ensembles:,.0f} ensemble{several}, {first.toys:,.0f} toys"
    return hv.Overlay(parts).opts(
        title=f"Coverage of the {level:.2%} interval\n{made}, {rows.failed.sum():,.0f} fits failed",
        xlabel="",
        ylabel="share of toys covered",
        xticks=list(enumerate(labels)),
        xlim=(-0.6, len(rows) - 0.4),
        fontsize={"title": "10pt"},
        **(FRAME | {"frame_width": max(300, 230 * len(rows))}),
    )


_NAMES = {"plain": "without spread", "spread": "with spread"}


def variance_components(source: Source) -> Any:
    """What the networks bring to the variance of the measurement, by where it comes from.

    An unbiased estimate of a small variance may be negative: it is not seen in this design.

    Parameters
    ----------
    source
        An inference, a fit (its newest one), the folder of either, or rows.

    Raises
    ------
    ValueError
        The ensemble was not crossed: it has one initialisation a replica, or no bootstrap.
    """
    hv = holoviews()
    record = record_of(source, "component", "inferences")
    whole, rows = of_kind(record, "measurement").iloc[-1], of_kind(record, "component")
    place, known_error = np.arange(len(rows)), pd.notna(whole.error)
    share = 100 / whole.error**2 if known_error else 1.0
    unit = f"% of σ² = ({whole.error:.2g})²" if known_error else f"variance of {whole.parameter}"
    shares, errors = (share * rows[each].to_numpy(float) for each in ("variance", "error"))
    boxes = [(x - 0.3, min(0, y), x + 0.3, max(0, y)) for x, y in zip(place, shares, strict=True)]
    bars = hv.Rectangles(boxes, ["x", "y", "x1", "y1"]).opts(color=TRUE, alpha=0.6, line_alpha=0)
    known = np.isfinite(errors)
    about = points_with_errors(place[known], shares[known], errors[known], "x", "y", TRUE)
    zero = hv.HLine(0).opts(color=GREY, line_width=1)
    first = rows.iloc[0]
    design = f"{first.replicas:.0f} replicas × {first.initialisations:.0f} initialisations"
    return (bars * about * zero).opts(
        title=f"Variance of {whole.parameter} that the networks bring\n{design}",
        ylabel=unit,
        xlabel="",
        xticks=list(zip(place.tolist(), rows.name, strict=True)),
        fontsize={"title": "10pt"},
        **(FRAME | {"frame_width": 420}),
    )


def _smooth(scan: pd.DataFrame, best: float) -> tuple[np.ndarray, np.ndarray]:
    """q between the strengths of a scan: its signed root is nearly a line."""
    known = scan.dropna(subset="q")
    mu = np.append(known.mu, best)
    order = np.argsort(mu)
    root = np.append(np.sign(known.mu - best) * np.sqrt(known.q), 0.0)[order]
    fine = np.linspace(mu.min(), mu.max(), 200)
    return fine, np.interp(fine, mu[order], root) ** 2


def _intervals(rows: pd.DataFrame, name: str) -> Any:
    """A bar an interval; where toys make its ends uncertain, a box at each."""
    hv = holoviews()
    place = dict(zip(rows.method, range(len(rows))[::-1], strict=True))
    parts, reasons = [], []
    for row in rows.itertuples():
        reasons += [f"{row.method}: {each}" for each in (row.low_reason, row.high_reason) if each]
        if pd.isna(row.low) or pd.isna(row.high):
            continue
        y, color = place[row.method], _METHODS[row.method]
        line = hv.Segments([(row.low, y, row.high, y)], [name, "y", "x1", "y1"])
        ends = [each for each in (row.low_errors, row.high_errors) if None not in each]
        boxes = [(low, y - 0.25, high, y + 0.25) for low, high in ends]
        box = hv.Rectangles(boxes, [name, "y", "x1", "y1"])
        parts += [
            line.opts(color=color, line_width=3),
            box.opts(color=color, alpha=0.4, line_alpha=0),
        ]
        parts.append(hv.Scatter(([row.value], [y]), name, "y").opts(color=color, size=8))
    if not parts:
        raise ValueError(f"there is no interval to draw: {'; '.join(reasons)}")
    return hv.Overlay(parts).opts(
        yticks=[(y, method) for method, y in place.items()],
        ylabel="",
        xlabel=name,
        ylim=(-0.6, len(rows) - 0.4),
        title="; ".join(reasons),
        fontsize={"title": "8pt"},
        frame_width=_WIDE,
        frame_height=40 * len(rows),
    )


def _pulls(rows: pd.DataFrame) -> Any:
    """Of the nuisances that were constrained before: free ones have no pull."""
    hv = holoviews()
    before = hv.VSpan(-1, 1).opts(color=GREY, alpha=0.25)
    before *= hv.VLine(0).opts(color=GREY, line_width=1)
    known = rows.dropna(subset="pull").astype({"pull": float, "constraint": float})
    if known.empty:
        return before.opts(xlim=(-2, 2))
    ends = (known.pull - known.constraint, known.place, known.pull + known.constraint, known.place)
    errors = hv.Segments(ends, ["x", "y", "x1", "y1"]).opts(color=TRUE, line_width=2)
    reach = max(2.0, 1.1 * float((known.pull.abs() + known.constraint).max()))
    dots = hv.Scatter((known.pull, known.place), "x", "y").opts(color=TRUE, size=7)
    return (before * errors * dots).opts(xlim=(-reach, reach))


def _bars(values: pd.Series, place: pd.Series) -> Any:
    hv = holoviews()
    pairs = zip(values.astype(float), place, strict=True)
    boxes = [(min(0, x), y - 0.3, max(0, x), y + 0.3) for x, y in pairs if np.isfinite(x)]
    return hv.Rectangles(boxes, ["change", "parameter", "x1", "y1"])


def _covered(row: Any, single: np.ndarray, place: int) -> list[Any]:
    """The band, the ensembles where there are several, and their mean with its error."""
    hv = holoviews()
    color, (low, high) = _VARIANTS[row.variant], row.band
    box = hv.Rectangles([(place - 0.4, low, place + 0.4, high)], ["x", "y", "x1", "y1"])
    parts = [box.opts(color=color, alpha=0.2, line_alpha=0)]
    if len(single) > 1:
        x = place + np.linspace(-0.3, 0.3, len(single))
        parts.append(hv.Scatter((x, single), "x", "y").opts(color=GREY, size=4))
    mean = points_with_errors([place], [row.fraction], [row.error], "x", "y", color)
    return [*parts, mean]
