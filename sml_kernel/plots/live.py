"""Figures of services while they work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sml_kernel import records
from sml_kernel.plots.canvas import FALSE, FRAME, TRUE, holoviews

_LINES = (TRUE, FALSE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GB = 1e9


def activity(run: records.Run) -> Any:
    """Throughput, time in the queue, mean batch, and how busy GPUs or the host are, over time.

    Of GPUs where there are any, else of the host. Where a model answered nothing its queue and
    batch are not drawn. Draw again for what has come since.

    Parameters
    ----------
    run
        ``watch.run`` of a `sml_kernel.serving.watch`, also while it goes on, or
        ``records.Run(folder)`` of an old one.

    Raises
    ------
    ValueError
        Nothing was recorded yet.
    """
    hv = holoviews()
    models, devices = run.rows("metrics"), run.rows("device")
    if models.empty:
        raise ValueError(f"nothing to draw yet in {run.folder}: two readings make the first row")
    began = float(min(models.time.min(), devices.time.min()))
    several = models.server.nunique() > 1
    models = models.assign(since_s=models.time - began, label=_labels(models, "model", several))
    gpus = devices[devices.device != "host"]
    shown = gpus if len(gpus) else devices
    shown = shown.assign(since_s=shown.time - began, label=_labels(shown, "device", several))
    shown["percent"] = 100 * shown.use
    shown["memory"] = shown.memory_used_bytes / _GB
    total = shown.memory_total_bytes.max() / _GB
    models["queue"] = models.queue_us / 1000
    what = "GPU" if len(gpus) else "host"
    figures = [
        _over_time(models, "throughput_s", "answers a second", "Throughput"),
        _over_time(models, "queue", "ms", "Waiting in the server, mean of a request"),
        _over_time(models, "mean_batch", "mean batch (rows, or graphs)", "What one call answers"),
        _over_time(models, "pending", "requests", "Waiting now"),
        _over_time(shown, "percent", "%", f"Use of the {what}", most=100.0),
        _over_time(shown, "memory", "GB", f"Memory of the {what}, of {total:.0f} GB", most=total),
    ]
    return hv.Layout(figures).opts(shared_axes=False, title="Servers at work").cols(2)


def _labels(rows: pd.DataFrame, column: str, several: bool) -> pd.Series:
    """A line's name: that of the server too, if there is more than one."""
    short = rows[column].str.slice(0, 20)
    return short + " @ " + rows.server.str.slice(-6) if several else short


def _over_time(
    rows: pd.DataFrame, column: str, label: str, title: str, most: float | None = None
) -> Any:
    import holoviews as hv

    lines = [
        hv.Curve((mine.since_s, mine[column]), "seconds", column, label=name).opts(
            color=color, line_width=2
        )
        for (name, mine), color in zip(
            rows.groupby("label"), _LINES * (1 + rows.label.nunique() // len(_LINES)), strict=False
        )
    ]
    largest = float(np.nanmax([*rows[column].fillna(0), 1e-9])) if most is None else most
    return hv.Overlay(lines).opts(
        title=title,
        xlabel="seconds",
        ylabel=label,
        ylim=(0, (1.2 if most is None else 1.02) * largest),
        legend_position="top_left",
        show_legend=len(lines) > 1,
        show_grid=True,
        **FRAME,
    )
