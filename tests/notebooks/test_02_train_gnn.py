"""`02_train_gnn` in small on this machine: what its records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sml_kernel import batch, records

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMALL = {"train_events": 8, "validation_events": 2, "test_events": 2, "pileup": 1, "epochs": 2}


@pytest.mark.notebook
def test_one_rank_trains_at_the_size_that_is_asked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = batch.run(
        NOTEBOOKS / "02_train_gnn.ipynb",
        {"site": "laptop", "cpus": 1, "ranks": 1, "hidden": 8, "iterations": 2, **SMALL},
        folder=tmp_path / "run",
        timeout_s=600,
        progress=False,
    )
    assert (result.status, result.error) == ("done", "")
    training = records.Run(result.folder / "results" / "train")
    asked = training.provenance()["parameters"]
    assert (asked["hidden"], asked["iterations"], asked["ranks"]) == (8, 2, 1)
    steps = training.rows("step")
    assert len(steps) == 8  # 8 events, 2 a step, 2 epochs
    assert steps.loss.iloc[-1] < steps.loss.iloc[0]
    (headline,) = records.read(result.folder / "results", "headline").itertuples()
    assert headline.particles > 20
    assert headline.ceiling > 0.9
