"""Trainings of graphs that do not fit: in parts, or refused before anything is there."""

from __future__ import annotations

import pytest
import torch

from sml_kernel import tracking
from sml_kernel.tracking import memory

SMALL = {"hidden": 16, "iterations": 3, "epochs": 2, "batch": 2, "threads": 1, "seed": 1}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    events = tracking.simulate(
        4, seed=4, process="gun", gun_particles=150, cache=cache, progress=False
    )
    return tracking.build_graphs(events)


def enough_for(share: float, graphs) -> int:
    """Bytes that a part of so many of the largest graph's edges takes, internals made again."""
    model = memory.remade(tracking.InteractionGNN(3, 6, SMALL["hidden"], SMALL["iterations"]))
    largest = max(graphs, key=lambda graph: graph.num_edges)
    size = int(share * largest.num_nodes), int(share * largest.num_edges)
    return int(1.15 * memory.predict(*size, model).peak_bytes) + 1000


def test_graphs_that_do_not_fit_are_trained_in_parts(graphs, tmp_path) -> None:
    """Numbers are those of whole graphs; where the halo has to be smaller a warning says so."""
    small = {"memory_bytes": enough_for(0.6, graphs)}
    curves = {}
    for name, given in (("whole", {}), ("parts", small)):
        run = tracking.train(graphs[:3], graphs[3:], folder=tmp_path / name, **SMALL, **given)
        curves[name] = run.wait().records
    files = list((tmp_path / "parts" / "graphs" / "train").glob("000000-*.safetensors"))
    assert len(files) >= 2
    assert not list((tmp_path / "whole" / "graphs" / "train").glob("*-*.safetensors"))
    assert "split into" in run.run.provenance()["memory"]
    for kind, figure in (("step", "loss"), ("step", "edges"), ("epoch", "validation_loss")):
        whole, parts = (rows[rows.kind == kind][figure].tolist() for rows in curves.values())
        assert parts == pytest.approx(whole, rel=1e-4)
    efficiency = [rows.edge_efficiency.dropna().iloc[-1] for rows in curves.values()]
    assert efficiency[0] == pytest.approx(efficiency[1], abs=0.01)  # each edge once, no halo
    assert torch.isfinite(torch.tensor(curves["parts"].loss.dropna().tolist())).all()


def test_what_cannot_fit_is_refused_before_anything_is_there(graphs, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"a rank may use .* would fit|nothing fits"):
        tracking.train(graphs, folder=tmp_path / "new", memory_bytes=enough_for(0.01, graphs))
    assert not (tmp_path / "new").exists()


def test_a_training_kept_whole_is_not_taken_up_with_less_memory(graphs, tmp_path) -> None:
    run = tracking.train(graphs, folder=tmp_path / "run", **{**SMALL, "epochs": 30})
    for row in run:
        if row["kind"] == "step":
            break
    asked = {**SMALL, "epochs": 30, "memory_bytes": enough_for(0.6, graphs)}
    with pytest.raises(ValueError, match="as a whole"):
        tracking.train(graphs, folder=tmp_path / "run", **asked)
