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
    workers = sml.launch(sys.argv[1], gpus=2, walltime="00:10:00", account="m1234_g",
                         folder=sys.argv[2])
    workers.wait(1, timeout_s=60)
    task = workers.client.submit(hold_the_gil)
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
def busy_notebook(single_node, tmp_path, own_jobs):
    """A process with a busy worker and a second job that is pending: (process, watchdog)."""
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    command = [sys.executable, str(script), str(single_node), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout.readline, "")
            watchdog = next(int(line.split()[1]) for line in lines if line.startswith("busy"))
            states = sorted(job.state for job in own_jobs())
            assert states == ["PENDING", "RUNNING"]
            yield process, watchdog
        finally:
            process.kill()


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
        there = ["squeue", "--noheader", f"--nodelist={row.node_list}", "--format=%i"]
        there = subprocess.run(there, capture_output=True, text=True, check=True).stdout.split()
        if there != [row.job_id]:
            pytest.skip(f"{row.node_list} has other people's jobs on it: not taken down")
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

    def gone():  # as a user asks: jobs that are still completing are shown too
        asked = ["squeue", "--me", "--noheader", "--format=%k"]
        shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        return str(tmp_path) not in shown

    assert not gone()
    process.send_signal(signal.SIGKILL)
    print("no job after", seconds_until(gone, 15), "s")
    run = sml.records.Run(tmp_path / "run")
    seconds_until(lambda: run.status() == "stopped", 20)
    assert not (run.folder / "tls").exists()
    assert "its jobs are cancelled" in run.provenance()["error"]
    assert len(run.rows("usage")) == 2


def test_one_whose_login_node_died_is_cleaned_by_its_name(busy_notebook, tmp_path, own_jobs):
    """From another host its notebook cannot be seen to be gone; here the record says so."""
    process, watchdog = busy_notebook
    run = sml.records.Run(tmp_path / "run")
    jobs = [sys.executable, "-m", "sml_kernel.cli", "jobs", "--runs", str(tmp_path)]

    def sml_jobs(*arguments):
        return subprocess.run([*jobs, *arguments], capture_output=True, text=True)

    alive = sml_jobs("--clean", str(run.folder))
    assert (alive.returncode, "lives: close its workers" in alive.stderr) == (2, True)
    os.kill(watchdog, signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run.note(host="login07")
    said = sml_jobs("--clean").stdout
    assert "its notebook ran on login07: if that is dead, name it to clean it" in said
    assert len(own_jobs()) == 2
    name = own_jobs()[0].name
    cleaned = sml_jobs("--clean", name)
    assert (cleaned.returncode, cleaned.stdout.splitlines()[-1]) == (0, "cleaned 1 of 1")
    assert own_jobs() == []
    assert not (run.folder / "tls").exists()
    assert run.status() == "stopped"


def test_without_its_watchdog_the_leftovers_are_found_and_cleaned(busy_notebook, tmp_path):
    process, watchdog = busy_notebook

    def found_here():
        return [one for one in leftovers.find(tmp_path) if tmp_path in one.folder.parents]

    alive = found_here()
    assert [one.left for one in alive] == [False]
    os.kill(watchdog, signal.SIGKILL)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (found,) = found_here()
    assert (found.status, found.left, len(found.jobs)) == ("lost", True, 2)
    assert found.folder == tmp_path / "run"
    assert leftovers.clean([found]) == []
    assert found_here() == []
    assert sml.records.Run(tmp_path / "run").status() == "stopped"
