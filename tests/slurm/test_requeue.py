"""A training in a batch job that Slurm puts back into the queue: one curve, whatever ended it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_training import ASKED, graphs

from sml_kernel import records
from sml_kernel.tracking import checkpoint, train

TESTS = Path(__file__).parents[1]
EPOCHS, STEPS = 40, 120

# The recipe of docs/tracking.md. The warning goes to the shell alone (B:), which passes it on.
JOB = """#!/bin/bash
#SBATCH --qos=regular --account=m1234 --constraint=cpu --nodes=1 --time=00:30:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@60
trap 'warned=yes; kill -USR1 $training' USR1
nice {python} {folder}/train.py & training=$!
wait $training || wait $training
[ -z "$warned" ] || scontrol requeue $SLURM_JOB_ID
"""
TRAIN = """
import signal

from small_training import ASKED, graphs
from sml_kernel import tracking

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, signal.default_int_handler)  # ends the training as Ctrl-C does
    asked = {{**ASKED, "epochs": {epochs}}}
    tracking.train(*graphs(), ranks=2, folder="{folder}/run/train", **asked).wait()
"""


@pytest.fixture
def job_id(slurm_mini, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN.format(epochs=EPOCHS, folder=tmp_path))
    script = tmp_path / "job.sh"
    script.write_text(JOB.format(python=sys.executable, folder=tmp_path))
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = ["sbatch", "--parsable", f"--output={tmp_path}/job.out"]
    command += [f"--comment=sml-kernel {tmp_path}/run", str(script)]
    sent = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    yield sent.stdout.strip()
    subprocess.run(["scancel", sent.stdout.strip()], check=True)


def test_requeued_by_hand_and_by_its_own_warning_it_is_one_curve(job_id, tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    until(lambda: steps_of(folder, session=0) > 10)
    run_now("scontrol", "requeue", job_id)
    wait_for_restart(job_id, 1)
    until(lambda: steps_of(folder, session=1) > 10)
    run_now("scancel", "--batch", "--signal=USR1", job_id)  # what --signal sends before the end
    wait_for_restart(job_id, 2)
    until(lambda: records.Run(folder).status() == "done")

    output = (tmp_path / "job.out").read_text()
    assert "Traceback" in output  # KeyboardInterrupt: the warning ended it in order
    run = records.Run(folder)
    second = records.Run(folder / "sessions" / "0001").provenance()
    third = records.Run(folder / "sessions" / "0002").provenance()
    assert (second["status"], third["status"]) == ("stopped", "done")
    steps = run.rows("step")
    counts = steps.groupby("step")["rank"].nunique()
    assert counts.index.tolist() == list(range(STEPS))
    assert set(counts) == {2}
    assert len(steps) == 2 * STEPS
    # it was warned, so the last step that it did is the one it goes on from: nothing was lost
    assert third["superseded_rows"] == 0
    last = steps[steps.session == 1].step.max()
    assert third["goes_on_from"] == f"step-{last + 1:08d}.safetensors"
    assert set(steps.session) == {0, 1, 2}

    whole = train(
        *graphs(),
        ranks=1,
        folder=tmp_path / "whole",
        **{**ASKED, "epochs": EPOCHS},
    ).wait()
    curves = [
        one.rows("step").query("rank == 0").sort_values("step").loss.to_numpy()
        for one in (whole.run, run)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert checkpoint.step_of(checkpoint.newest(folder / "checkpoints")[0]) == STEPS


def steps_of(folder: Path, session: int) -> int:
    if not (folder / "run.json").exists():
        return 0
    rows = records.Run(folder).rows("step")
    return 0 if rows.empty else int((rows.session == session).sum())


def wait_for_restart(job_id: str, times: int) -> None:
    """Until the job runs again; of the two minutes that Slurm waits first, a few seconds do.

    Within the second in which it was killed a node takes it for the killed one.
    """

    def restarted() -> bool:
        shown = run_now("scontrol", "show", "job", "--oneliner", job_id)
        if f"Restarts={times} " not in shown:
            return False
        if "JobState=PENDING" in shown:
            time.sleep(3)
            # refused if it has started meanwhile: the next look sees it
            update = ["scontrol", "update", f"JobId={job_id}", "StartTime=now"]
            subprocess.run(update, capture_output=True)
        return "JobState=RUNNING" in shown

    until(restarted)


def run_now(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def until(condition, limit_s: float = 600) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.3)
