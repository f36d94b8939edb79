"""Stage timing: every stage of every pass is there, and the tracks are those of the chains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from sml_kernel import records
from sml_kernel.tracking import (
    Event,
    InteractionGNN,
    KalmanSettings,
    build_graphs,
    find_tracks,
    kalman_tracks,
    learn_cuts,
    simulate,
    time_inference,
)
from sml_kernel.tracking.cuts import Cuts

NETWORK_STAGES = ["graph", "scores", "tracks"]
ACTS_STAGES = ["seeding", "kalman filter", "ambiguity"]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    cache = tmp_path_factory.mktemp("events")
    return simulate(5, 1, 2, process="gun", gun_particles=30, cache=cache, progress=False)


@pytest.fixture(scope="module")
def cuts(events: list[Event]) -> Cuts:
    return learn_cuts(events[2:])


@pytest.fixture(scope="module")
def model() -> InteractionGNN:
    torch.manual_seed(0)
    return InteractionGNN(3, 6, 8, 1)


def test_both_chains_are_timed_stage_by_stage_on_the_same_events(
    events: list[Event], cuts: Cuts, model: InteractionGNN, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    took = time_inference(
        events[:2], cuts, model, kalman=KalmanSettings(), cut=0.4, repeats=2, pileup=1
    )
    assert torch.get_num_threads() == before
    counts = Counter((row["chain"], row["stage"], row["warm_up"]) for row in took.rows)
    stages = [("network", stage) for stage in NETWORK_STAGES]
    stages += [("ACTS", stage) for stage in ACTS_STAGES]
    assert counts == {
        (*stage, warm): 2 if warm else 4 for stage in stages for warm in (True, False)
    }
    assert all(row["seconds"] > 0 for row in took.rows)
    graphs = build_graphs(events[:2], cuts)
    edges = {row["event"]: row["edges"] for row in took.rows if row["chain"] == "network"}
    assert list(edges.values()) == [graph.num_edges for graph in graphs]
    for labels, graph in zip(took.labels["network"], graphs, strict=True):
        assert (labels == find_tracks(model, graph, cut=0.4)).all()
    for labels, other in zip(took.labels["ACTS"], kalman_tracks(events[:2]), strict=True):
        assert (labels == other).all()
    run = records.start(tmp_path / "run", kind="inference", parameters={})
    with run.writer() as writer:
        took.append(writer)
    assert len(run.rows("inference")) == len(took.rows)


def test_the_table_sums_stages_and_leaves_warm_up_out(
    events: list[Event], cuts: Cuts, model: InteractionGNN
) -> None:
    took = time_inference(events[:1], cuts, model, kalman=KalmanSettings(), repeats=1)
    slow = [{**row, "seconds": 1e3} if row["warm_up"] else row for row in took.rows]
    took = type(took)(slow, took.labels)
    table = took.table()
    assert table.stage.tolist() == [*NETWORK_STAGES, "total", *ACTS_STAGES, "total"]
    for chain, rows in table.groupby("chain"):
        assert rows.median_s.iloc[-1] == pytest.approx(rows.median_s.iloc[:-1].sum()), chain
        assert rows.median_s.iloc[-1] < 1e3
    network, acts = table[table.stage == "total"].set_index("chain").median_s[["network", "ACTS"]]
    assert took.ratio() == pytest.approx(dict.fromkeys(("median", "low", "high"), acts / network))


def test_without_acts_there_is_no_ratio(
    events: list[Event], cuts: Cuts, model: InteractionGNN
) -> None:
    took = time_inference(events[:1], cuts, model, repeats=1, warm_up=0)
    assert set(took.labels) == {"network"}
    assert np.isnan(took.ratio()["median"])
    with pytest.raises(ValueError, match="each of a name of its own"):
        time_inference([events[0], events[0]], cuts, model)
    with pytest.raises(ValueError, match="one or more"):
        time_inference([], cuts, model)
