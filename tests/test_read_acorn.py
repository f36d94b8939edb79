"""Graphs in acorn's layouts, written here; and files that must not be loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from sml_kernel.tracking import (
    Event,
    InputError,
    build_graphs,
    find_tracks,
    join_segments,
    read_acorn,
    simulate,
    train,
)
from sml_kernel.tracking.truth import true_segments

#: newer name → older name
OLDER = {
    "hit_r": "r", "hit_phi": "phi", "hit_z": "z", "edge_y": "y", "edge_weights": "weights",
    "track_to_edge_map": "truth_map", "track_particle_id": "particle_id",
    "track_particle_pt": "pt", "hit_volume_id": "volume_id", "hit_layer_id": "layer_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> Event:
    cache = tmp_path_factory.mktemp("events")
    (made,) = simulate(1, 1, 4, process="gun", gun_particles=20, cache=cache, progress=False)
    return made


@pytest.fixture(scope="module")
def graph(event: Event) -> Data:
    (made,) = build_graphs(event)
    return made


def acorn_data(event: Event, graph: Data, older: bool) -> Data:
    """The same graph as acorn keeps it: features by name, half of the edges pointing inwards."""
    hits = event.hits
    x, y, z = (torch.from_numpy(hits[name].to_numpy(float)) for name in "xyz")
    edges = graph.edge_index.clone()
    edges[:, ::2] = edges[:, ::2].flip(0)
    segments = torch.from_numpy(np.stack(true_segments(event)))
    place = {tuple(sorted(pair)): k for k, pair in enumerate(edges.T.tolist())}
    found = [place.get(tuple(sorted(pair)), -1) for pair in segments.T.tolist()]
    fields = {
        "hit_id": torch.from_numpy(hits.hit_id.to_numpy(copy=True)),
        "hit_r": torch.hypot(x, y),
        "hit_phi": torch.atan2(y, x),
        "hit_z": z,
        "hit_volume_id": torch.from_numpy(hits.volume_id.to_numpy(copy=True)),
        "hit_layer_id": torch.from_numpy(hits.layer_id.to_numpy(copy=True)),
        "track_edges": segments,
        "track_particle_id": graph.particle_id[segments[0]],
        "track_particle_pt": 1000 * graph.pt_gev[segments[0]],
        "edge_index": edges,
        "edge_y": graph.y > 0,
        "edge_weights": 2 * graph.weight,
        "track_to_edge_map": torch.tensor(found),
    }
    data = Data()
    for name, value in fields.items():
        data[OLDER.get(name, name) if older else name] = value
    data.event_id = "000000001"
    data.config = [{"stage": "data_reading", "feature_sets": {"hit_features": ["r", "phi"]}}]
    return data


def lightning_settings(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """Settings as a stage of acorn appends them: Lightning's own dict, which is not installed."""
    name = "lightning.fabric.utilities.data"
    for part in (name.rsplit(".", k)[0] for k in range(3, 0, -1)):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    module = ModuleType(name)
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": name})
    monkeypatch.setitem(sys.modules, name, module)
    return module.AttributeDict(settings)


@pytest.mark.parametrize("older", [False, True])
def test_both_layouts_give_the_graph_that_we_build(
    event: Event, graph: Data, tmp_path: Path, older: bool
) -> None:
    path = tmp_path / "event000000001-graph.pyg"
    torch.save(acorn_data(event, graph, older), path)
    read = read_acorn(path)
    for name in ("x", "edge_attr"):
        torch.testing.assert_close(read[name], graph[name], rtol=1e-4, atol=1e-4)
    outwards = torch.hypot(read.x[:, 0], read.x[:, 2])[read.edge_index].diff(dim=0)
    assert (outwards >= 0).all()
    assert torch.equal(read.edge_index.sort(0).values, graph.edge_index.sort(0).values)
    assert torch.equal(read.y, graph.y)
    assert torch.equal(read.weight, 2 * graph.weight)
    assert torch.equal(read.hit_id, graph.hit_id)
    on_segment = torch.zeros(len(read.x), dtype=torch.bool)
    on_segment[np.concatenate(true_segments(event))] = True
    assert torch.equal(read.particle_id, torch.where(on_segment, graph.particle_id, 0))
    pt_gev = torch.where(on_segment, graph.pt_gev, 0)
    torch.testing.assert_close(read.pt_gev, pt_gev, rtol=1e-5, atol=1e-6)
    assert read.name == "000000001"
    assert read.kept_segments <= read.true_segments == len(true_segments(event)[0])
    assert read.kept_segments == int(graph.y.sum())


def test_layers_tell_overlapping_modules(event: Event, graph: Data, tmp_path: Path) -> None:
    data = acorn_data(event, graph, older=True)
    torch.save(data, tmp_path / "with.pyg")
    del data.volume_id
    torch.save(data, tmp_path / "without.pyg")
    labels = [
        join_segments(read, read.y.numpy())
        for read in (read_acorn(tmp_path / f"{name}.pyg") for name in ("with", "without"))
    ]
    assert (labels[0] == join_segments(graph, graph.y.numpy())).all()
    assert (labels[0] >= 0).sum() > (labels[1] >= 0).sum() > 0


def test_truth_and_weights_are_worked_out_where_the_file_has_none(
    event: Event, graph: Data, tmp_path: Path
) -> None:
    data = acorn_data(event, graph, older=True)
    for name in ("y", "weights", "truth_map", "hit_id"):
        del data[name]
    torch.save(data, tmp_path / "event.pyg")
    read = read_acorn(tmp_path / "event.pyg")
    assert torch.equal(read.y, graph.y)
    assert (read.weight == 1).all()
    assert read.hit_id[0] == 1


def test_read_graphs_train_and_give_tracks(event: Event, graph: Data, tmp_path: Path) -> None:
    torch.save(acorn_data(event, graph, older=False), tmp_path / "event.pyg")
    read = read_acorn(tmp_path / "event.pyg")
    sizes = {"epochs": 1, "hidden": 8, "iterations": 1, "batch": 1}
    run = train([read] * 2, folder=tmp_path / "run", **sizes).wait()
    losses = [row["loss"] for row in run if row["kind"] == "step"]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    tracks = find_tracks(run.model, read, cut=0.0)
    assert tracks.shape == (len(event.hits),)
    assert tracks.max() > 0


def test_settings_of_later_stages_do_not_ask_for_lightning(
    event: Event, graph: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = acorn_data(event, graph, older=True)
    with monkeypatch.context() as installed:
        data.config.append(lightning_settings(installed, stage="edge_classifier", hidden=128))
        torch.save(data, tmp_path / "event.pyg")
    assert read_acorn(tmp_path / "event.pyg").num_edges == graph.num_edges


class Intruder:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_code_in_a_file_does_not_run(event: Event, graph: Data, tmp_path: Path) -> None:
    mark, path = tmp_path / "it-ran", tmp_path / "event.pyg"
    data = acorn_data(event, graph, older=True)
    data.config = [Intruder(mark)]
    for held in (data, Intruder(mark)):
        torch.save(held, path)
        with pytest.raises(InputError, match=r"event\.pyg holds something .* not loaded"):
            read_acorn(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # it would have run


def test_what_is_wrong_is_named(event: Event, graph: Data, tmp_path: Path) -> None:
    path = tmp_path / "event.pyg"
    sound = acorn_data(event, graph, older=True)
    n_edges = sound.edge_index.shape[1]

    def refused(match: str, **changes: Any) -> None:
        data = sound.clone()
        for name, value in changes.items():
            if value is None:
                del data[name]
            else:
                data[name] = value
        torch.save(data, path)
        with pytest.raises(InputError, match=match) as error:
            read_acorn(path)
        assert str(path) in str(error.value)

    refused("no field edge_index .graph construction writes it.; it has: ", edge_index=None)
    refused("no field hit_r or r .*hit_features", r=None)
    refused("no field hit_phi or phi", phi=None)
    refused("no field track_particle_id or particle_id .*track_features", particle_id=None)
    refused("nor track_edges, so no truth", y=None, track_edges=None)
    refused(rf"field 'weights': 3 values where {n_edges} belong", weights=torch.ones(3))
    refused("field 'z': a value is not finite", z=sound.z.clone().fill_(torch.nan))
    refused("field 'z': not one number each but a list", z=["far"])
    refused("field 'edge_index': goes beyond the", edge_index=sound.edge_index + len(sound.r))
    refused("field 'edge_index': not two rows of whole", edge_index=sound.edge_index.double())
    refused("give the unit", pt=sound.pt / 1000)
    torch.save({"edge_index": sound.edge_index}, path)
    with pytest.raises(InputError, match="holds no torch_geometric Data but a dict"):
        read_acorn(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="cut short"):
        read_acorn(path)
    with pytest.raises(InputError, match="no such file"):
        read_acorn(tmp_path / "other.pyg")
    with pytest.raises(ValueError, match="known: MeV, GeV"):
        read_acorn(path, pt_unit="TeV")
