"""A network with its cuts and where it is from, in one file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sml_kernel import tracking


def test_a_file_brings_back_network_cuts_and_provenance(tmp_path) -> None:
    events = tracking.simulate(2, seed=5, process="gun", cache=tmp_path, progress=False)
    cuts = tracking.learn_cuts(events)
    torch.manual_seed(0)
    model = tracking.InteractionGNN(3, 6, hidden=8, iterations=2).eval()
    file = tmp_path / "small.safetensors"
    tracking.Pretrained(model, cuts, {"seed": 5}).save(file)
    found = tracking.pretrained(file)
    before, after = (tracking.build_graphs(events[0], each)[0] for each in (cuts, found.cuts))
    assert torch.equal(before.edge_index, after.edge_index)
    assert before.num_edges > 0
    scores = [tracking.score_segments(net, before) for net in (model, found.model)]
    assert np.array_equal(*scores)
    assert found.provenance == {"seed": 5}


def test_what_is_no_pretrained_network_is_said(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no pretrained network 'nothing'; there are: "):
        tracking.pretrained("nothing")
    tracking.InteractionGNN(3, 6, hidden=4, iterations=1).save(tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"bare.safetensors holds a network without cuts"):
        tracking.pretrained(tmp_path / "bare.safetensors")


def test_the_network_of_the_package_finds_tracks_it_never_saw() -> None:
    found = tracking.pretrained("ttbar-pileup50")
    events = tracking.simulate(4, pileup=10, seed=777, progress=False)
    graphs = tracking.build_graphs(events, found.cuts)
    cuts = found.provenance["score_cuts"]
    for method, cut in cuts.items():
        tracks = [tracking.find_tracks(found.model, g, cut=cut, method=method) for g in graphs]
        row = tracking.score_tracks(events, tracks, "central").row()
        assert row["efficiency"] > 0.95
        assert row["fake_rate"] < 0.05
    assert {row["pileup"] for row in found.provenance["figures"]} == {50, 200}
