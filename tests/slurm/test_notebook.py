"""`01_workers` and `02_train_gnn` against the real Slurm, by their parameters alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sml_kernel import batch, records

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.notebook
def test_the_same_notebook_runs_on_pinned_workers_in_a_job(slurm_mini, tmp_path):
    slurm = {"site": slurm_mini, "gpus": 2, "cpus": 0, "account": "m1234_g", "qos": "shared"}
    result = batch.run(
        NOTEBOOKS / "01_workers.ipynb",
        {"decays": 200_000, **slurm},
        folder=tmp_path / "run",
        progress=False,
    )
    assert (result.status, result.error) == ("done", "")
    run = records.Run(result.folder / "results")
    assert sorted(run.rows("place").gpu) == ["0", "1"]
    (row,) = run.rows("acceptance").itertuples()
    assert abs(row.pull) < 5

    workers = records.Run(run.folder / "workers")
    assert workers.status() == "done"
    used = workers.rows("usage")
    assert set(used.account) == {"m1234_g"}
    assert len(used) == 2  # a job of two workers, and the one of one that took its place
    assert used.node_hours.sum() == pytest.approx(
        (used.elapsed_s.to_numpy() * [0.5, 0.25]).sum() / 3600
    )
    assert len(workers.rows("loss")) == 0


@pytest.mark.notebook
def test_a_network_is_trained_by_ranks_on_two_nodes(slurm_mini, tmp_path, monkeypatch):
    """Two ranks in two one-GPU jobs; Slurm's GPUs are stand-ins, so the ranks compute on cores."""
    monkeypatch.chdir(tmp_path)
    slurm = {"site": slurm_mini, "gpus": 2, "account": "m1234_g", "qos": "regular"}
    small = {"train_events": 8, "validation_events": 2, "test_events": 2, "pileup": 1, "epochs": 2}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = batch.run(
        NOTEBOOKS / "02_train_gnn.ipynb",
        {**slurm, **small, "nodes": 2, "hidden": 8, "iterations": 2},
        folder=tmp_path / "run",
        timeout_s=600,
        progress=False,
    )
    assert (result.status, result.error) == ("done", "")
    training = records.Run(result.folder / "results" / "train")
    assert set(training.rows("step").writer) == {"rank0", "rank1"}
    (headline,) = records.read(result.folder / "results", "headline").itertuples()
    assert headline.ceiling > 0.9
    workers = records.Run(result.folder / "results" / "workers")
    assert workers.status() == "done"
    assert set(workers.rows("usage").account) == {"m1234_g"}
    (job,) = workers.rows("job").itertuples()
    assert job.nodes == 2
