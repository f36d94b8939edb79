"""Figures of a training and of the tracks it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sml_kernel.plots.canvas import FALSE, FRAME, GREY, TRUE, holoviews
from sml_kernel.tracking.events import Event

_LABELS = {"pt_gev": "pT / GeV", "eta": "η"}


def training(records: pd.DataFrame) -> Any:
    """Loss a step, loss an epoch, and edge efficiency and purity of the validation graphs.

    Parameters
    ----------
    records
        Rows of a training run: ``run.records``, or `sml_kernel.records.read` of its folder.
    """
    hv = holoviews()
    rows = records[records.writer == "rank0"]
    steps, epochs = rows[rows.kind == "step"], rows[rows.kind == "epoch"]
    if epochs.empty:
        raise ValueError("no epoch is recorded yet")
    smooth = steps.assign(loss=steps.loss.rolling(20, min_periods=1).median())
    loss = smooth.hvplot.line(x="step", y="loss", color=GREY, label="training", logy=True)
    ends = epochs.assign(step=steps.groupby("epoch").step.max().reindex(epochs.epoch).to_numpy())
    if "validation_loss" not in ends:
        return loss.opts(title="Loss", **FRAME)
    held_out = ends.hvplot.line(x="step", y="validation_loss", color=TRUE, label="validation")
    dots = ends.hvplot.scatter(x="step", y="validation_loss", color=TRUE, size=30)
    shown = ["edge_efficiency", "edge_purity", "auc"]
    figures = ends.rename(columns={name: name.replace("_", " ") for name in shown}).hvplot.line(
        x="step",
        y=[name.replace("_", " ") for name in shown],
        ylabel="validation edges at score > 0.5",
        legend="bottom_right",
        ylim=_with_room_below(float(ends[shown].min().min())),
        color=[TRUE, FALSE, GREY],
    )
    both = (loss * held_out * dots).opts(title="Loss", legend_position="top_right", **FRAME)
    figures = figures.opts(title="What the network keeps", **FRAME)
    return (both + figures).opts(hv.opts.Layout(shared_axes=False)).cols(2)


def score_distribution(records: pd.DataFrame) -> Any:
    """Scores of true and of false segments, on a logarithmic scale.

    Parameters
    ----------
    records
        With a row ``scores`` (`sml_kernel.tracking.append_scores`); the last one is drawn.
    """
    hv = holoviews()
    row = _rows(records, "scores").iloc[-1]
    edges = np.array(row.edges)
    curves = []
    for label, counts, color in (("true", row.true, TRUE), ("false", row.false, FALSE)):
        table = (edges[:-1] + edges[1:]) / 2, np.maximum(counts, 0.5)  # log 0 is no height
        curve = hv.Curve(table, kdims=["score"], vdims=["segments"], label=label)
        curves.append(curve.opts(color=color, interpolation="steps-mid", line_width=2))
    return hv.Overlay(curves).opts(
        logy=True, legend_position="top_left", title="Scores of candidate segments", **FRAME
    )


def efficiency(records: pd.DataFrame, against: str = "pt_gev") -> Any:
    """Efficiency with binomial errors in bins of pT or η, the ceiling beside it.

    Parameters
    ----------
    records
        With rows ``efficiency`` (`sml_kernel.tracking.stages.StageScores.append`).
    against
        ``"pt_gev"`` or ``"eta"``.
    """
    if against not in _LABELS:
        raise ValueError(f"unknown variable {against!r}; known: {', '.join(_LABELS)}")
    rows = _rows(records, "efficiency")
    rows = rows[rows.against == against].astype({"efficiency": float, "error": float})
    ceiling, network = (rows[rows.stage == stage] for stage in ("ceiling", "network"))
    figure = _with_errors(ceiling, "ceiling", GREY, 5) * _with_errors(network, "network", TRUE, 7)
    return figure.opts(
        xlabel=_LABELS[against],
        ylabel="efficiency",
        logx=against == "pt_gev",
        xticks=[1, 2, 5, 10, 20, 50] if against == "pt_gev" else 6,
        ylim=_with_room_below(float((network.efficiency - network.error).min())),
        legend_position="bottom_left",
        title=f"Efficiency against {_LABELS[against].split(' /')[0]}\n{rows.cuts.iloc[0]}",
        fontsize={"title": "9pt"},
        **FRAME,
    )


def event(event: Event, tracks: np.ndarray, *, min_hits: int = 4) -> Any:
    """An event's hits and tracks, across the beam and along it.

    Parameters
    ----------
    event
        Where the hits are.
    tracks
        [N] the track of each hit, −1 where it has none (`sml_kernel.tracking.find_tracks`).
    min_hits
        Only tracks of so many hits are drawn.
    """
    hv = holoviews()
    hits = event.hits.assign(r=np.hypot(event.hits.x, event.hits.y), track=tracks)
    size = hits.groupby("track").hit_id.transform("size")
    drawn = hits[(hits.track >= 0) & (size >= min_hits)]
    depth = np.sqrt(drawn.x**2 + drawn.y**2 + drawn.z**2)
    drawn = drawn.assign(depth=depth).sort_values(["track", "depth"])
    views = []
    for x, y, title in (("x", "y", "across the beam"), ("z", "r", "along the beam")):
        points = hits.hvplot.scatter(x=x, y=y, color=GREY, size=1, alpha=0.5, hover=False)
        # one table of segments: a path a track takes HoloViews minutes for hundreds of them
        lines = hv.Segments(_steps(drawn, x, y), kdims=["x0", "y0", "x1", "y1"], vdims=["track"])
        lines = lines.opts(color="track", cmap="glasbey_hv", line_width=1.2, alpha=0.8)
        views.append(
            (points * lines).opts(
                title=f"{drawn.track.nunique()} tracks, {title}",
                xlabel=f"{x} / mm",
                ylabel=f"{y} / mm",
                frame_width=340 if x == "x" else 460,
                frame_height=340,
            )
        )
    return hv.Layout(views).opts(shared_axes=False).cols(2)


def _steps(hits: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Segments from each hit to the next of its track; hits come track by track, in order."""
    following = hits.shift(-1)
    steps = {"x0": hits[x], "y0": hits[y], "x1": following[x], "y1": following[y]}
    return pd.DataFrame({**steps, "track": hits.track})[(hits.track == following.track)]


def stages(records: pd.DataFrame) -> Any:
    """Share of particles missed after each stage, with binomial errors.

    Parameters
    ----------
    records
        With rows ``stage`` (`sml_kernel.tracking.stages.StageScores.append`).
    """
    hv = holoviews()
    rows = _rows(records, "stage")
    missed = rows.assign(missed=100 * (1 - rows.efficiency), error=100 * rows.efficiency_error)
    bars = missed.hvplot.bar(x="stage", y="missed", color=TRUE, ylabel="particles missed / %")
    errors = hv.ErrorBars(missed, kdims=["stage"], vdims=["missed", "error"])
    highest = float((missed.missed + missed.error).max())
    title = f"Where particles are lost\n{rows.cuts.iloc[0]}"
    return (bars * errors).opts(
        title=title,
        fontsize={"title": "9pt"},
        xlabel="after the stage",
        ylim=(0, 1.1 * highest),
        **FRAME,
    )


def _rows(records: pd.DataFrame, kind: str) -> pd.DataFrame:
    found = records[records.kind == kind] if len(records) else records
    if found.empty:
        raise ValueError(f"these records have no row of kind {kind!r}")
    return found.dropna(axis="columns", how="all")


def _with_room_below(lowest: float) -> tuple[float, float]:
    """Limits for shares up to 1 that leave the lower third to a legend."""
    lowest = min(lowest, 0.97)
    return lowest - 0.5 * (1 - lowest), 1.0 + 0.05 * (1 - lowest)


def _with_errors(points: pd.DataFrame, label: str, color: str, size: int) -> Any:
    hv = holoviews()
    bars = hv.ErrorBars(points, kdims=["mean"], vdims=["efficiency", "error"]).opts(color=color)
    dots = points.hvplot.scatter(
        x="mean",
        y="efficiency",
        label=label,
        color=color,
        size=size**2,
        hover_cols=["error", "particles"],
    )
    return bars * dots
