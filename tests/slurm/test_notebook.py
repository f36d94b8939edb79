"""`01_workers` against the real Slurm, by its parameters alone."""

from __future__ import annotations

from pathlib import Path

import papermill
import pytest

from sml_kernel import records

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_workers.ipynb"


@pytest.mark.notebook
def test_the_same_notebook_runs_on_pinned_workers_in_a_job(slurm_mini, tmp_path):
    slurm = {"site": slurm_mini, "gpus": 2, "cpus": 0, "account": "m1234_g", "qos": "shared"}
    papermill.execute_notebook(
        NOTEBOOK,
        tmp_path / "out.ipynb",
        parameters={"folder": "run", "decays": 200_000, **slurm},
        cwd=tmp_path,
        progress_bar=False,
    )
    run = records.Run(tmp_path / "run")
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
