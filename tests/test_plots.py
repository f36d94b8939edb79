"""Figures: drawn from records alone, with nothing that comes from the network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sml_kernel import plots, records
from sml_kernel.plots import physics


@pytest.fixture
def results(tmp_path: Path) -> pd.DataFrame:
    run = records.start(tmp_path / "run", kind="test", parameters={})
    with run.writer("rank0") as writer:
        for step in range(4):
            writer.append("step", step=step, epoch=step // 2, loss=1 / (1 + step))
        for epoch in range(2):
            figures = {"edge_efficiency": 0.9, "edge_purity": 0.8, "auc": 0.99}
            writer.append("epoch", epoch=epoch, validation_loss=0.3, **figures)
        for stage in ("graph", "ceiling", "network"):
            writer.append("stage", stage=stage, efficiency=0.9, efficiency_error=0.01, cuts="cuts")
            for against in ("pt_gev", "eta"):
                point = {"mean": 1.5, "efficiency": 0.9, "error": 0.01, "particles": 100}
                writer.append("efficiency", stage=stage, against=against, cuts="cuts", **point)
        edges = np.linspace(0, 1, 3)
        writer.append("scores", edges=edges, true=[0, 5], false=[7, 1])
    return run.rows()


@pytest.mark.parametrize(
    "draw",
    [
        plots.training,
        plots.score_distribution,
        plots.stages,
        lambda rows: plots.efficiency(rows, "pt_gev"),
        lambda rows: plots.efficiency(rows, "eta"),
    ],
)
def test_every_figure_is_drawn_from_records_alone(draw, results, tmp_path: Path) -> None:
    import hvplot
    from bokeh.resources import INLINE

    hvplot.save(draw(results), str(tmp_path / "figure.html"), resources=INLINE)
    page = (tmp_path / "figure.html").read_text()
    assert '"type":"object","name":"Figure"' in page
    assert not re.search(r"<script[^>]+src=.https?://", page)


def test_records_without_the_rows_say_which(results) -> None:
    with pytest.raises(ValueError, match="no row of kind 'efficiency'"):
        plots.efficiency(results[results.kind == "step"])
    with pytest.raises(ValueError, match="known: pt_gev, eta"):
        plots.efficiency(results, "phi")
    with pytest.raises(ValueError, match="no epoch"):
        plots.training(results[results.kind == "step"])


def test_an_event_of_many_tracks_is_drawn_segment_by_segment() -> None:
    hits = pd.DataFrame({"track": [0, 0, 0, 1, 1], "x": range(5), "y": range(5, 10)})
    steps = physics._steps(hits, "x", "y")
    assert steps[["x0", "x1"]].to_numpy().tolist() == [[0, 1], [1, 2], [3, 4]]
    assert steps.track.tolist() == [0, 0, 1]
