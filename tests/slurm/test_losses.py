"""What goes wrong on a real Slurm: jobs that are lost, notebooks that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import sml_kernel as sml
from sml_kernel.workers import leftovers, slurm

NOTEBOOK = """
import sys, time
import sml_kernel as sml

def hold_the_gil():
    return sum(range(10**13))

if __name__ == "__main__":
    workers = sml.launch(sys.argv[1], gpus=3, walltime="00:10:00", account="m1234_g", qos="debug",
                         folder=sys.argv[2])
    workers.wait(2, timeout_s=60)
    tasks = workers.client.map(lambda _: hold_the_gil(), range(2), pure=False)
    while {len(now) for now in workers.client.processing().values()} != {1}:
        time.sleep(0.1)
    print("busy", workers._backend.watchdog.process.pid, flush=True)
    time.sleep(600)
"""


def seconds_until(condition, limit_s):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, f"not within {limit_s} s"
        time.sleep(0.2)
    return time.monotonic() - start


@pytest.fixture
def busy_notebook(small_site, tmp_path):
    """A process with two busy workers and a third job that is pending: (process, watchdog)."""
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    command = [sys.executable, str(script), str(small_site), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout.readline, "")
            watchdog = next(int(line.split()[1]) for line in lines if line.startswith("busy"))
            states = sorted(job.state for job in slurm.queue() if not job.ended)
            assert states == ["PENDING", "RUNNING", "RUNNING"]
            yield process, watchdog
        finally:
            process.kill()


def no_job():
    return all(job.ended for job in slurm.queue())


def test_a_cancelled_job_of_two_workers_is_replaced_and_its_cause_recorded(asked):
    with sml.launch(**asked | {"gpus": 2}) as workers:
        workers.wait(timeout_s=60)
        old = set(workers.client.scheduler_info()["workers"])
        (job_id,) = workers.jobs().job_id
        slurm.cancel(ids=(job_id,))

        def replaced():
            now = set(workers.client.scheduler_info()["workers"])
            return len(now) == 2 and not now & old

        print("two workers again after", seconds_until(replaced, 30), "s")
        seconds_until(lambda: len(workers.run.rows("loss")) == 1, 20)
        (loss,) = workers.run.rows("loss").itertuples()
        assert (loss.job_id, loss.cause, loss.told_by) == (
            job_id,
            f"CANCELLED by {os.getuid()}",
            "sacct",
        )
        assert loss.replaced_by in set(workers.jobs().query("state == 'RUNNING'").job_id)
    assert set(workers.run.rows("usage").job_id) == {job_id, loss.replaced_by}


def test_a_node_that_fails_is_a_loss_and_its_task_runs_elsewhere(asked):
    with sml.launch(**asked) as workers:
        workers.wait(timeout_s=60)
        (row,) = workers.jobs().itertuples()
        task = workers.client.submit(time.sleep, 3, pure=False)
        node = f"nodename={row.node_list}"
        down = ["scontrol", "update", node, "state=down", "reason=test"]
        try:
            subprocess.run(down, check=True)
            seconds_until(lambda: len(workers.run.rows("loss")) == 1, 30)
            task.result(timeout=30)
        finally:
            # it may have returned to service by itself, which Slurm calls an error
            subprocess.run(["scontrol", "update", node, "state=resume"], capture_output=True)
    (loss,) = workers.run.rows("loss").itertuples()
    assert loss.cause == "NODE_FAIL"


def test_a_killed_notebook_leaves_no_job_running_or_pending(busy_notebook, tmp_path):
    process, _ = busy_notebook
    process.send_signal(signal.SIGKILL)
    print("no job after", seconds_until(no_job, 15), "s")
    run = sml.records.Run(tmp_path / "run")
    seconds_until(lambda: run.status() == "stopped", 20)
    assert not (run.folder / "tls").exists()
    assert "its jobs are cancelled" in run.provenance()["error"]
    assert len(run.rows("usage")) == 3


def test_without_its_watchdog_the_leftovers_are_found_and_cleaned(busy_notebook, tmp_path):
    process, watchdog = busy_notebook
    alive = leftovers.find(tmp_path)
    assert [one.left for one in alive] == [False]
    os.kill(watchdog, signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (found,) = leftovers.find(tmp_path)
    assert (found.status, found.left, len(found.jobs)) == ("lost", True, 3)
    assert found.folder == tmp_path / "run"
    assert leftovers.clean([found]) == []
    assert leftovers.find(tmp_path) == []
    assert sml.records.Run(tmp_path / "run").status() == "stopped"
