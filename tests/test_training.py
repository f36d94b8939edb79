"""Training on ranks: one loss whatever their number, the caller in the loop, failures that tell."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from sml_kernel import records
from sml_kernel.tracking import (
    InteractionGNN,
    build_graphs,
    checkpoint,
    learn_cuts,
    simulate,
    train,
)
from sml_kernel.tracking.ranks import learning_rate
from sml_kernel.tracking.store import hash_graphs, open_graphs, write_graphs
from sml_kernel.workers.gang import GangError

SMALL = {"hidden": 8, "iterations": 2, "batch": 4, "threads": 1}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    events = simulate(
        8, 1, 3, process="gun", cache=tmp_path_factory.mktemp("events"), progress=False
    )
    return build_graphs(events, learn_cuts(events))


def test_one_rank_and_two_give_the_same_curve_and_weights(graphs, tmp_path: Path) -> None:
    runs = [
        train(graphs[:6], graphs[6:], epochs=2, ranks=ranks, folder=tmp_path / str(ranks), **SMALL)
        for ranks in (1, 2)
    ]
    one, two = ([row for row in run if row["kind"] == "step"] for run in runs)
    assert len(one) == len(two) == 4
    for first, second in zip(one, two, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
        assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)
    epochs = [run.records.query("kind == 'epoch'") for run in runs]
    for name in ("train_loss", "validation_loss", "edge_efficiency", "edge_purity", "auc"):
        assert epochs[0][name].to_numpy() == pytest.approx(epochs[1][name].to_numpy(), rel=1e-4)
    for ours, theirs in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [run.run.status() for run in runs] == ["done", "done"]
    hashes = {run.run.provenance()["data_hash"] for run in runs}
    assert hashes == {open_graphs(tmp_path / "1" / "graphs" / "train").hash()}
    assert one[-1]["loss"] < one[0]["loss"]


def test_validation_figures_are_those_of_their_definition(graphs, tmp_path: Path) -> None:
    from sml_kernel.tracking import score_edges, score_segments

    run = train(graphs[:4], graphs[4:], epochs=1, folder=tmp_path / "run", **SMALL)
    (epoch,) = [row for row in run if row["kind"] == "epoch"]
    y = np.concatenate([graph.y.numpy() for graph in graphs[4:]])
    scores = np.concatenate([score_segments(run.model, graph) for graph in graphs[4:]])
    exact = score_edges(y, scores, y, cut=0.5)
    assert epoch["auc"] == pytest.approx(exact["auc"], abs=2e-3)
    assert epoch["edge_efficiency"] == pytest.approx(exact["eff"], abs=2e-3)
    assert epoch["edge_purity"] == pytest.approx(exact["total_pur"], abs=2e-3)


def test_leaving_the_loop_ends_the_training(graphs, tmp_path: Path) -> None:
    run = train(graphs, epochs=500, ranks=2, folder=tmp_path / "run", **SMALL)
    for row in run:
        if row["kind"] == "epoch" and row["epoch"] == 1:
            break
    assert run.run.status() == "stopped"
    state, _ = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert checkpoint.step_of(state) >= 4  # both epochs are in it, and what came after
    weights = checkpoint.load_model(state).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())
    first = InteractionGNN.load(tmp_path / "run" / "checkpoints" / "epoch-0000.safetensors")
    assert any(not torch.equal(value, weights[name]) for name, value in first.state_dict().items())
    assert not [p for p in psutil.Process().children(recursive=True) if _is_rank(p)]


def test_an_interrupt_in_the_loop_ends_the_training(graphs, tmp_path: Path) -> None:
    run = train(graphs, epochs=5000, ranks=2, folder=tmp_path / "run", **SMALL)
    rows = iter(run)
    next(rows)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        for _ in rows:
            pass
    assert run.run.status() == "stopped"
    assert not [p for p in psutil.Process().children(recursive=True) if _is_rank(p)]


def test_a_killed_rank_ends_the_training_with_its_name(graphs, tmp_path: Path) -> None:
    run = train(graphs, epochs=500, ranks=2, folder=tmp_path / "run", **SMALL)
    rows = iter(run)
    next(rows)
    ranks = [child for child in psutil.Process().children(recursive=True) if _is_rank(child)]
    os.kill(ranks[-1].pid, signal.SIGKILL)
    killed = time.monotonic()
    with pytest.raises(GangError, match="killed by"):
        list(rows)
    assert time.monotonic() - killed < 10
    seen = records.Run(tmp_path / "run")
    assert seen.status() == "failed"
    assert "killed" in seen.provenance()["error"]


def test_impossible_requests_start_nothing(graphs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no graphs"):
        train([], folder=tmp_path / "run")
    with pytest.raises(ValueError, match="each of the 3 ranks"):
        train(graphs, batch=2, ranks=3, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="hidden"):
        train(graphs, hidden=0, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_learning_rate_rises_once_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100) for step in range(101)]
    peak = int(np.argmax(rates))
    assert rates[peak] == 1.0
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak + 1 :]) < 0).all()
    assert rates[-1] == pytest.approx(0.0)
    assert learning_rate(0, 1) > 0


def test_graphs_come_back_from_disk_as_they_went(graphs, tmp_path: Path) -> None:
    written = write_graphs(graphs, tmp_path / "store")
    again = open_graphs(tmp_path / "store")
    assert again.entries == written.entries
    for k, graph in enumerate(graphs):
        for name in ("x", "edge_index", "edge_attr", "y", "weight"):
            assert torch.equal(again[k][name], graph[name])
    assert again.hash() == written.hash() == hash_graphs(graphs)
    assert again.hash() == records.hash_files(sorted((tmp_path / "store").glob("*.safetensors")))
    assert write_graphs(graphs[::-1], tmp_path / "other").hash() != written.hash()


def _is_rank(process: psutil.Process) -> bool:
    try:
        return any("sml_kernel.workers.rank" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False
