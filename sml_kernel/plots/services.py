"""Figures of services under load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sml_kernel.plots.canvas import FALSE, FRAME, GREY, TRUE, holoviews
from sml_kernel.serving.load import PARTS, Load

_COLOURS = dict(zip(PARTS, ("#56B4E9", "#009E73", "#E69F00", TRUE, GREY), strict=True))
_LINES = (TRUE, FALSE, "#009E73", "#CC79A7")
_TICKS = [m * 10**e for e in range(-2, 6) for m in (1, 2, 5)]  # bokeh labels few by itself
_LABELS = {"concurrency": "requests under way", "rate": "requests that arrive a second"}


def load(sweep: Load) -> Any:
    """Throughput, time of a request, where it goes, and how many requests a call answers.

    Closed loops are drawn against requests under way, open loops against their rate, measured
    values at equal distances; bars are quartiles of repeats. Dotted grey is the model called
    directly, crosses are medians by perf_analyzer. A ring marks where the client was busy, so that
    it was measured, not the service.

    Parameters
    ----------
    sweep
        From `sml_kernel.serving.sweep` or `open_load`, whole or under way.

    Raises
    ------
    ValueError
        Nothing is measured yet.
    """
    hv = holoviews()
    table = sweep.table()
    if table.empty:
        raise ValueError(f"nothing to draw yet: {sweep}")
    direct = sweep.direct()
    alone = float(direct.median()) if len(direct) else None
    figures: list[Any] = []
    for axis, rows in (("concurrency", table[table.rate == 0]), ("rate", table[table.rate > 0])):
        if len(rows):
            placed = rows.assign(place=np.searchsorted(np.unique(rows[axis]), rows[axis]))
            figures += [_throughput(placed, axis, alone), _times(placed, axis, alone)]
            figures += [_parts(placed, axis), _batches(placed, axis)]
    name = sweep.run.provenance()["parameters"]["name"]
    return hv.Layout(figures).opts(shared_axes=False, title=f"{name} under load").cols(2)


def _throughput(table: pd.DataFrame, axis: str, alone: float | None) -> Any:
    drawn = _lines(table, "throughput_s", "throughput", 1.0)
    most = table.throughput_high.max()
    if alone is not None:
        drawn, most = drawn * _level(1 / alone), max(most, 1 / alone)
    return drawn.opts(
        title="Throughput",
        ylabel="answers a second",
        ylim=(0, 1.2 * most),
        legend_position="bottom_right",
        **_axis(table, axis),
    )


def _times(table: pd.DataFrame, axis: str, alone: float | None) -> Any:
    drawn = _lines(table, "p50_us", "p50", 1e-3) * _tails(table)
    if "analyzer_p50_us" in table:
        drawn = drawn * _analyzed(table)
    if alone is not None:
        drawn = drawn * _level(1e3 * alone)
    return drawn.opts(
        title="Time of a request: median, dashed 99 %",
        ylabel="ms",
        logy=True,
        yticks=_TICKS,
        legend_position="top_left",
        **_axis(table, axis),
    )


def _axis(table: pd.DataFrame, axis: str) -> dict[str, Any]:
    """Measured values at equal distances, and the frame."""
    ticks = {int(row.place): f"{row[axis]:g}" for _, row in table.iterrows()}
    limits = (-0.4, max(ticks) + 0.4)
    return {
        "xlabel": _LABELS[axis],
        "xticks": sorted(ticks.items()),
        "xlim": limits,
        "show_grid": True,
        **FRAME,
    }


def _lines(table: pd.DataFrame, column: str, name: str, unit: float) -> Any:
    import holoviews as hv

    parts: list[Any] = []
    for (transport, mine), color in zip(table.groupby("transport"), _LINES, strict=False):
        x, y = mine.place.to_numpy(), mine[column].to_numpy() * unit
        low, high = (mine[f"{name}_{end}"].to_numpy() * unit for end in ("low", "high"))
        bars = (x, y, y - low, high - y)
        parts.append(hv.Curve((x, y), "place", column, label=transport).opts(color=color))
        parts.append(hv.ErrorBars(bars, "place", [column, "below", "above"]).opts(color=color))
        parts.append(hv.Scatter((x, y), "place", column).opts(color=color, size=7))
        busy = mine.saturated.to_numpy(bool)
        if busy.any():
            ring = hv.Scatter((x[busy], y[busy]), "place", column, label="client busy")
            parts.append(ring.opts(color=FALSE, fill_alpha=0, size=13, line_width=2))
    return hv.Overlay(parts)


def _tails(table: pd.DataFrame) -> Any:
    import holoviews as hv

    pairs = zip(table.groupby("transport"), _LINES, strict=False)
    curves = [
        hv.Curve((mine.place, mine.p99_us * 1e-3), "place", "p50_us").opts(
            color=color, line_dash="dashed"
        )
        for (_, mine), color in pairs
    ]
    return hv.Overlay(curves)


def _analyzed(table: pd.DataFrame) -> Any:
    """Medians by perf_analyzer, crosses beside ours."""
    import holoviews as hv

    crosses = [
        hv.Scatter(
            (mine.place, mine.analyzer_p50_us * 1e-3), "place", "p50_us", label="perf_analyzer"
        ).opts(color=color, marker="x", size=10, line_width=2)
        for (_, mine), color in zip(table.groupby("transport"), _LINES, strict=False)
    ]
    return hv.Overlay(crosses)


def _level(value: float) -> Any:
    import holoviews as hv

    return hv.HLine(value).opts(color=GREY, line_dash="dotted", line_width=2)


def _parts(table: pd.DataFrame, axis: str) -> Any:
    """Stacked bars, of the first transport."""
    import holoviews as hv

    first = table[table.transport == table.transport.iloc[0]].sort_values(axis)
    rows = [
        (f"{row[axis]:g}", part, 1e-3 * max(0.0, row[f"{part}_us"]))
        for _, row in first.iterrows()
        for part in PARTS
    ]
    return hv.Bars(rows, [_LABELS[axis], "part"], "ms").opts(
        stacked=True,
        color="part",
        cmap=_COLOURS,
        title=f"Where the mean time goes, {first.transport.iloc[0]}",
        legend_position="top_left",
        line_color=None,
        show_grid=True,
        **FRAME,
    )


def _batches(table: pd.DataFrame, axis: str) -> Any:
    import holoviews as hv

    parts: list[Any] = []
    for (transport, mine), color in zip(table.groupby("transport"), _LINES, strict=False):
        line = (mine.place, mine.mean_batch)
        parts.append(hv.Curve(line, "place", "batch", label=transport).opts(color=color))
        parts.append(hv.Scatter(line, "place", "batch").opts(color=color, size=7))
    return hv.Overlay(parts).opts(
        title="What one call of the model answers",
        ylabel="mean batch (rows, or graphs)",
        ylim=(0, 1.2 * float(np.nanmax(table.mean_batch))),
        legend_position="top_left",
        **_axis(table, axis),
    )
