"""`01_workers` on this machine: what its records say, not only that its cells ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from sml_kernel import batch, records

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_workers.ipynb"


@pytest.mark.notebook
def test_workers_of_this_machine_find_the_acceptance(tmp_path):
    result = batch.run(NOTEBOOK, {"decays": 200_000}, folder=tmp_path / "run", progress=False)
    assert (result.status, result.error) == ("done", "")
    run = records.Run(result.folder / "results")
    assert run.status() == "done"
    (row,) = run.rows("acceptance").itertuples()
    assert row.total == 200_000
    assert abs(row.pull) < 5
    assert row.error < 0.001
    assert len(run.rows("place")) == 2

    workers = records.Run(run.folder / "workers")
    assert workers.status() == "done"
    assert workers.provenance()["parameters"]["site"] == "laptop"
    (used,) = workers.rows("usage").itertuples()
    assert used.elapsed_s > 0
    assert used.node_hours == 0
