"""An ensemble of networks trained by Slurm jobs, its jobs cancelled and its notebook killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np

from sml_kernel import sbi
from sml_kernel.sbi.campaign import shards
from sml_kernel.workers import slurm

MODULE = """
from sml_kernel import sbi


def ensemble():
    problem = sbi.draw(sbi.GaussianShift(1.0), 4000, seed=3)
    settings = {"hidden": (16, 16), "epochs": 6, "patience": 6, "batch": 64, "stack": 8}
    return sbi.Ensemble(problem, 96, **settings)
"""
NOTEBOOK = """
import sys
import sml_kernel as sml
from campaign_of_the_test import ensemble

site, folder, records = sys.argv[1:]
asked = {"gpus": 2, "nodes": 2, "walltime": "00:10:00", "account": "m1234_g", "qos": "regular"}
with sml.launch(site, **asked, folder=records) as workers:
    workers.wait(2, timeout_s=120)
    print("begun", flush=True)
    ensemble().fit(workers, folder, progress=False)
"""


def test_no_member_is_lost_and_none_is_trained_twice(slurm_mini, tmp_path, own_jobs) -> None:
    (tmp_path / "campaign_of_the_test.py").write_text(MODULE)
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    folder = tmp_path / "campaign"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(number: int) -> list[str]:
        launched = str(tmp_path / f"workers-{number}")
        return [sys.executable, "notebook.py", slurm_mini, str(folder), launched]

    def until(stacks: int, process: subprocess.Popen) -> None:
        begin = time.monotonic()
        while len(shards.there(folder)) < stacks:
            assert process.poll() is None, "it ended too soon"
            assert time.monotonic() - begin < 240
            time.sleep(0.02)

    with subprocess.Popen(command(1), cwd=tmp_path, env=environment) as killed:
        until(1, killed)
        slurm.cancel(ids=(own_jobs()[0].job_id,))  # its workers die; the notebook replaces them
        until(4, killed)
        killed.send_signal(signal.SIGKILL)
    before = {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("shards/[0-9]*/*.parquet")
    }
    assert 4 <= len(shards.there(folder)) < 12, "it must be cut in the middle"

    subprocess.run(command(2), cwd=tmp_path, env=environment, check=True, timeout=300)
    fit = sbi.open_fit(folder)
    assert str(fit.progress()) == "96 of 96 members done"
    assert fit.members(judged=False).key.is_unique
    after = {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("shards/[0-9]*/*.parquet")
    }
    assert before.items() <= after.items(), "a stack was trained again"

    sys.path.insert(0, str(tmp_path))
    try:
        from campaign_of_the_test import ensemble
    finally:
        sys.path.remove(str(tmp_path))
    here = ensemble().fit(folder=tmp_path / "here", progress=False)
    np.testing.assert_array_equal(fit.ratio(progress=False).ratio, here.ratio(progress=False).ratio)
