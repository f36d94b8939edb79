"""The step of training and its benchmark: one gradient, phases without a gap, hidden reading."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import graph

from sml_kernel.tracking import InteractionGNN, sampler, train
from sml_kernel.tracking.prefetch import ahead, graphs_ahead
from sml_kernel.tracking.step import PHASES, take
from sml_kernel.tracking.store import open_graphs, write_graphs
from sml_kernel.workers import gang

BATCH = 8


@pytest.fixture(scope="module")
def graphs():
    sizes = np.random.default_rng(1).integers(4000, 8000, 2 * BATCH).tolist()
    return [graph(seed, edges) for seed, edges in enumerate(sizes)]


def gradient(rank: int, ranks: int, folder: Path) -> np.ndarray:
    """Of the first batch, over all ranks; flat."""
    store, cpu = open_graphs(folder), torch.device("cpu")
    torch.manual_seed(0)
    model = InteractionGNN(3, 2, hidden=16, iterations=2)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    (whole, _) = sampler.batches(store.edges, BATCH, seed=0, epoch=0)
    mine = sampler.deal(whole, store.edges, ranks)[rank]
    weight = sum(store.entries[number].weight for number in whole)
    with graphs_ahead(store, mine, cpu) as found:
        taken = take(model, still, found, len(mine), weight, cpu, (rank == 1, False))
    assert taken.asked == (ranks > 1, False)
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    # clipping is of the sum, so the norm is the same: put back what it took
    return (flat * max(1.0, taken.gradient_norm)).numpy()


def test_one_two_and_four_ranks_have_the_same_gradient(graphs, tmp_path: Path) -> None:
    write_graphs(graphs, tmp_path / "store")
    function = partial(gradient, folder=tmp_path / "store")
    one = function(0, 1)
    assert np.linalg.norm(one) > 1e-3
    for ranks in (2, 4):
        for found in gang.run(function, ranks, threads=1):
            assert np.linalg.norm(found - one) < 1e-5 * np.linalg.norm(one)


def test_four_ranks_give_the_curve_of_one_and_phases_that_fill_the_step(graphs, tmp_path) -> None:
    asked = {"hidden": 16, "iterations": 2, "batch": BATCH, "epochs": 4, "threads": 1}
    runs = {
        ranks: train(graphs, ranks=ranks, folder=tmp_path / str(ranks), **asked).wait()
        for ranks in (1, 4)
    }
    steps = {ranks: run.run.rows("step") for ranks, run in runs.items()}
    assert steps[4].groupby("step")["rank"].nunique().tolist() == 8 * [4]
    curves = [
        rows.query("rank == 0").sort_values("step").loss.to_numpy() for rows in steps.values()
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    parts = [f"{phase}_s" for phase in PHASES]
    for ranks, rows in steps.items():
        assert (rows[parts] >= 0).all(axis=None)
        by_rank = rows.groupby("rank")[[*parts, "step_s"]].sum()
        assert by_rank[parts].sum(axis=1).tolist() == pytest.approx(by_rank.step_s, rel=0.03)
        # and the steps fill the epochs: nothing is done beside them
        assert 0.9 < by_rank.step_s[0] / runs[ranks].run.rows("epoch").seconds.sum() <= 1.0
    waited = steps[4].groupby("step").wait_s.min()
    assert waited.median() < 0.2 * steps[4].step_s.median()  # the slowest rank waits for nobody


def test_slow_reading_is_hidden_behind_computing() -> None:
    reading_s, computing_s, count = 0.03, 0.05, 12

    def read(number: int) -> int:
        time.sleep(reading_s)
        return number

    waited, found = [], []
    with ahead(read, range(count)) as results:
        while True:
            begin = time.perf_counter()
            number = next(results, None)
            if number is None:
                break
            waited.append(time.perf_counter() - begin)
            found.append(number)
            time.sleep(computing_s)
    assert found == list(range(count))
    assert waited[0] >= reading_s  # nothing to hide the first behind
    assert sum(waited[1:]) < 0.2 * reading_s * (count - 1)


def test_it_reads_no_further_than_asked_and_its_thread_ends_with_the_block() -> None:
    before, read = threading.active_count(), []
    with ahead(lambda number: read.append(number) or number, range(100), depth=2) as results:
        assert next(results) == 0
        time.sleep(0.2)
        assert read == [0, 1, 2]
    assert threading.active_count() == before
    with pytest.raises(KeyError, match="mine"), ahead(read.append, range(100)):
        raise KeyError("mine")
    assert threading.active_count() == before


def test_an_error_of_the_reader_comes_where_its_graph_would_have(graphs, tmp_path: Path) -> None:
    store = write_graphs(graphs[:3], tmp_path / "store")
    (tmp_path / "store" / store.entries[1].files[0]).write_bytes(b"nothing")
    with graphs_ahead(store, [0, 1, 2], torch.device("cpu")) as found:
        assert torch.equal(next(found).x, graphs[0].x)
        with pytest.raises(OSError, match="is damaged"):
            next(found)
