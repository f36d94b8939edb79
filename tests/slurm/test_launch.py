"""Workers in jobs of a real Slurm: pinned, placed, refused, and what is left afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest

import sml_kernel as sml
from sml_kernel.workers import RequestError, SlurmError, WorkersError, slurm

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not see this file


def place():
    names = ("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "OMP_NUM_THREADS")
    return tuple(os.environ[name] for name in names)


def script_in_accounting(job_id):
    """The batch script that Slurm itself kept of a job."""
    command = ["sacct", "-j", job_id, "--batch-script"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_four_pinned_workers_over_two_nodes_in_one_job(asked, capsys, monkeypatch):
    monkeypatch.setenv("SBATCH_QOS", "debug")  # the script is what counts
    with sml.launch(**asked | {"gpus": 4, "nodes": 2}) as workers:
        assert "0.1667 node-hours, up to 0.6667 if lost" in capsys.readouterr().out
        workers.wait(timeout_s=60)
        places = sorted(workers.client.run(place).values())
        assert [gpu for _, gpu, _, _ in places] == ["0", "1", "0", "1"]
        assert len({node for node, *_ in places}) == 2
        (job_id,) = {job for _, _, job, _ in places}
        assert {threads for *_, threads in places} == {"16"}

        (row,) = workers.jobs().itertuples()
        assert (row.job_id, row.state, row.nodes, row.workers) == (job_id, "RUNNING", 2, 4)
        assert 0 < row.time_left.total_seconds() <= 600
        (queued,) = slurm.queue(row.name.rpartition("-")[0])
        assert queued.qos == "regular"
        assert workers.client.scheduler.address.startswith("tls://127.0.0.1:")
        keys = list((workers.run.folder / "tls").iterdir())
        assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
        assert len(keys) == 3
        assert "Registered to" in workers.logs()[job_id]
        sent = workers.job_script()
    assert sent in script_in_accounting(job_id)
    assert not (workers.run.folder / "tls").exists()
    (used,) = workers.run.rows("usage").itertuples()
    assert (used.job_id, used.account, used.nodes) == (job_id, "m1234_g", 2)
    assert used.node_hours == pytest.approx(used.elapsed_s / 3600)  # half of each of two nodes


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"qos": "nonesuch"}, "Invalid qos"), ({"account": "nobody_g"}, "Invalid account")],
)
def test_what_sbatch_refuses_is_raised_here_in_its_words(asked, wrong, words):
    with pytest.raises(SlurmError, match=words):
        sml.launch(**asked | wrong)
    run = sml.records.Run(asked["folder"])
    assert run.status() == "failed"
    assert words in run.provenance()["error"]
    assert not (run.folder / "tls").exists()


def test_scaling_keeps_what_it_can_and_is_no_loss(asked, small_site):
    with sml.launch(**asked | {"site": small_site}) as workers:
        workers.wait(1, timeout_s=60)
        kept = workers.client.submit(socket.gethostname, pure=False)
        kept.result(timeout=10)
        workers.scale(2)
        workers.wait(2, timeout_s=60)
        before = workers.jobs().query("state == 'RUNNING'").job_id.tolist()
        assert len(before) == 2
        with pytest.raises(RequestError, match="regular allows 100 jobs at a time, you asked"):
            workers.scale(101)
        workers.scale(1)
        running = workers.jobs().query("state == 'RUNNING'").job_id.tolist()
        assert running == before[:1]
        assert kept.result(timeout=10)
        time.sleep(3)  # three looks of the keeper
        assert len(workers.jobs().query("state == 'RUNNING'")) == 1
    assert len(workers.run.rows("loss")) == 0
    assert len(workers.run.rows("usage")) == 2


def test_a_refused_scale_leaves_what_was_held(asked, small_site, capsys):
    """The site's file knows no limit of this QOS; Slurm does: two jobs at a time."""
    text = small_site.read_text().replace("gpus = 1", "gpus = 2").replace("cores = 64", "cores = 4")
    small_site.write_text(text.replace("regular", "interactive"))
    with sml.launch(**asked | {"site": small_site, "gpus": 4, "qos": "interactive"}) as workers:
        held = set(workers.jobs().job_id)
        assert len(held) == 2
        with pytest.raises(SlurmError, match="QOSMaxSubmitJobPerUserLimit"):
            workers.scale(3)  # one job stays, the other would go for a smaller one
        assert set(workers.jobs().job_id) == held
        assert not workers.jobs().state.isin(slurm.ENDED).any()
        assert "4 GPUs asked for" in repr(workers)
        workers.scale(2)
        capsys.readouterr()
        workers.scale(3)
        assert "1 job on 1 gpu node for 00:10:00 in interactive" in capsys.readouterr().out
        workers.wait(timeout_s=60)
    assert len(workers.run.rows("loss")) == 0


def test_a_pending_job_shows_slurms_reason(asked, single_node):
    with sml.launch(**asked | {"site": single_node, "gpus": 2}) as workers:
        workers.wait(1, timeout_s=60)
        pending = workers.jobs().query("state == 'PENDING'")
        assert pending.reason.isin(["Resources", "Priority"]).tolist() == [True]
        assert pending.workers.tolist() == [0]
        with pytest.raises(TimeoutError, match="PENDING"):
            workers.wait(2, timeout_s=0.5)
        assert "PENDING" in repr(workers)


def test_jobs_that_never_connect_leave_their_words(asked, small_site):
    text = Path(small_site).read_text()
    small_site.write_text(
        text.replace("[nodes", 'modules = ["echo no such module; exit 3"]\n[nodes')
    )
    with sml.launch(**asked | {"site": small_site, "retries": 1}) as workers:
        with pytest.raises(WorkersError, match=r"ended .*replaced 1 times already\nno such module"):
            workers.wait(timeout_s=60)
        assert list(workers.logs().values()) == ["no such module\n"] * 2
        workers.scale(0)  # a new request: what was given up for the old one is no reason any more
        workers.wait(timeout_s=1)
        with pytest.raises(TimeoutError, match="0 of 1 workers"):
            workers.wait(1, timeout_s=0)
    losses = workers.run.rows("loss")
    assert losses.cause.tolist() == ["FAILED", "FAILED"]
    assert losses.exit_code.tolist() == ["3:0", "3:0"]
    assert losses.told_by.tolist() == ["sacct", "sacct"]
