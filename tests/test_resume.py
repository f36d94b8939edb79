"""A training that was killed goes on: the same curve, each step once, from a whole checkpoint."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from small_training import ASKED, EPOCHS, graph, graphs

from sml_kernel import records
from sml_kernel.tracking import InteractionGNN, checkpoint, train
from sml_kernel.tracking.checkpoint import CheckpointError, Progress
from sml_kernel.tracking.sessions import TrainingError
from sml_kernel.tracking.step import edge_loss
from sml_kernel.workers.gang import GangError

STEPS = 3 * EPOCHS
STARTER = """
import sys
from small_training import ASKED, graphs
from sml_kernel import tracking

if __name__ == "__main__":
    run = tracking.train(*graphs(), ranks=2, folder=sys.argv[1], **ASKED)
    for row in run:
        if row["kind"] == "step":
            print(row["step"], flush=True)
"""


def test_killed_at_random_steps_it_gives_the_whole_curve_once(tmp_path: Path) -> None:
    folder, training = tmp_path / "killed", graphs()
    kill_a_starter(tmp_path, folder, at=random.randrange(2, 20))
    assert records.Run(folder).status() == "lost"
    first = newest_step(folder)

    run = train(*training, ranks=1, folder=folder, **ASKED)
    with pytest.raises(TrainingError, match="is under way"):
        train(*training, ranks=1, folder=folder, **ASKED)
    kill_ranks_at(run, step=random.randrange(first + 4, 45))
    state, _ = checkpoint.newest(folder / "checkpoints")
    state.write_bytes(state.read_bytes()[:-100])  # as if the disk had lost its end

    with pytest.warns(UserWarning, match=f"{state.name} is damaged"):
        run = train(*training, ranks=2, folder=folder, **ASKED)
    run.wait()
    whole = train(*training, ranks=1, folder=tmp_path / "whole", **ASKED).wait()

    assert run.run.status() == "done"
    assert_each_step_once(run)
    assert_same_curve(whole, run)
    sessions = [records.Run(path) for path in sorted((folder / "sessions").iterdir())]
    assert [session.status() for session in sessions] == ["failed", "done"]
    assert len(list((folder / "checkpoints").glob("step-*.safetensors"))) == checkpoint.KEPT
    for ours, theirs in zip(run.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    # asked once more it is there, and nothing runs
    again = train(*training, ranks=2, folder=folder, **ASKED)
    assert [row["step"] for row in again if row["kind"] == "step"] == list(range(STEPS))
    assert not ranks_of(psutil.Process())


def test_another_training_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    training, held_out = graphs()
    train(training, held_out, folder=tmp_path / "run", **{**ASKED, "epochs": 1}).stop()
    other = {**ASKED, "epochs": 2, "learning_rate": 0.1}
    with pytest.raises(TrainingError) as caught:
        train(training[:9], held_out, folder=tmp_path / "run", **other)
    told = str(caught.value)
    for differs in ("epochs = 1", "epochs = 2", "learning_rate = 0.1", "graphs = '"):
        assert differs in told
    assert "hidden" not in told
    assert "choose another folder" in told
    records.start(tmp_path / "study", kind="scaling", parameters={})
    with pytest.raises(TrainingError, match="kind 'scaling', not a training"):
        train(training, held_out, folder=tmp_path / "study", **ASKED)


def test_a_state_comes_back_bit_for_bit_and_the_next_step_is_the_same(tmp_path: Path) -> None:
    model, optimiser = trained(3)
    path = checkpoint.save(tmp_path, model, optimiser, Progress(3, 1.5, 2.5))
    again, second, progress = checkpoint.load(path, torch.optim.AdamW, torch.device("cpu"))
    assert progress == Progress(3, 1.5, 2.5)
    path.unlink()  # nothing is read from it later
    for one in ((model, optimiser), (again, second)):
        one_step(*one)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_damaged_and_half_written_states_are_passed_over(tmp_path: Path) -> None:
    model, optimiser = trained(1)
    paths = [checkpoint.save(tmp_path, model, optimiser, Progress(step)) for step in range(6)]
    assert sorted(tmp_path.iterdir()) == paths[-checkpoint.KEPT :]
    content = bytearray(paths[-1].read_bytes())
    content[-7] ^= 1  # one bit of a weight
    paths[-1].write_bytes(content)
    (tmp_path / ".step-00000006.safetensors.1").write_bytes(b"half")
    state, damaged = checkpoint.newest(tmp_path)
    assert state == paths[-2]
    assert damaged == {
        paths[-1]: "step-00000005.safetensors is damaged: its content is not what was written"
    }
    for path in paths[-3:]:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="train in another folder"):
        checkpoint.newest(tmp_path)


def trained(steps: int) -> tuple[InteractionGNN, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = InteractionGNN(3, 2, hidden=4, iterations=1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        one_step(model, optimiser)
    return model, optimiser


def one_step(model: InteractionGNN, optimiser: torch.optim.Optimizer) -> None:
    one = graph(5, 40)
    optimiser.zero_grad()
    edge_loss(model(one.x, one.edge_index, one.edge_attr), one.y, one.weight).backward()
    optimiser.step()


def kill_a_starter(tmp_path: Path, folder: Path, at: int) -> None:
    """A process of its own trains; it is killed, and its ranks with it."""
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, str(script), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": here}
    ) as process:
        try:
            lines = iter(process.stdout.readline, "")
            assert any(int(line) >= at for line in lines)
            ranks = ranks_of(psutil.Process(process.pid))
            assert len(ranks) == 2
        finally:
            process.kill()
    assert psutil.wait_procs(ranks, timeout=10)[1] == []


def kill_ranks_at(run, step: int) -> None:
    rows = iter(run)
    next(row for row in rows if row["kind"] == "step" and row["step"] >= step)
    for rank in ranks_of(psutil.Process()):
        os.kill(rank.pid, signal.SIGKILL)
    with pytest.raises(GangError, match="killed by"):
        list(rows)


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    return [
        child
        for child in process.children(recursive=True)
        if any("sml_kernel.workers.rank" in part for part in child.cmdline())
    ]


def newest_step(folder: Path) -> int:
    return checkpoint.step_of(checkpoint.newest(folder / "checkpoints")[0])


def assert_each_step_once(run) -> None:
    """Planned = done: of every rank that was there in the session that did the step, one row."""
    steps, ranks = run.run.rows("step"), run.run.rows("rank")
    counts = steps.groupby(["session", "step"])["rank"].nunique()
    there = ranks.groupby("session").ranks.first()
    assert sorted(counts.index.get_level_values("step")) == list(range(STEPS))
    assert all(count == there[session] for (session, _), count in counts.items())
    assert len(steps) == counts.sum()
    assert run.run.rows("epoch").epoch.tolist() == list(range(EPOCHS))
    late = [
        line
        for path in (run.folder / "superseded").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert late  # it was killed after its last checkpoint: those rows are kept, but aside


def assert_same_curve(one, other) -> None:
    for name in ("loss", "gradient_norm", "learning_rate"):
        curves = [
            run.run.rows("step").query("rank == 0").sort_values("step")[name].to_numpy()
            for run in (one, other)
        ]
        assert curves[0] == pytest.approx(curves[1], rel=1e-5 if name != "gradient_norm" else 1e-3)
    for name in ("train_loss", "validation_loss"):
        curves = [run.run.rows("epoch")[name].to_numpy() for run in (one, other)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-5)
