"""Graphs and events joined to one: what each gets is what it would get alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_kernel import serving, tracking
from sml_kernel.tracking import served


@pytest.fixture(scope="module")
def model() -> tracking.InteractionGNN:
    torch.manual_seed(0)
    return tracking.InteractionGNN(3, 2, hidden=8, iterations=2)


def graph(nodes: int, edges: int, seed: int) -> served.Tensors:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(nodes, 3, generator=generator),
        torch.randint(0, nodes, (2, edges), generator=generator),
        torch.randn(edges, 2, generator=generator),
    )


SIZES = st.tuples(st.integers(1, 30), st.integers(0, 80), st.integers(0, 9))


@settings(max_examples=50, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=5))
def test_joined_graphs_get_the_scores_that_each_gets_alone(model, sizes) -> None:
    graphs = [graph(*size) for size in sizes]
    call = served.EdgeScores(model)
    with torch.no_grad():
        joined, split = served.join_graphs(graphs)
        answers = split((call(*joined),))
        for one, (answer,) in zip(graphs, answers, strict=True):
            torch.testing.assert_close(answer, call(*one), rtol=0, atol=1e-6)


@pytest.mark.parametrize("edge", [(0, 5), (-1, 0)])
def test_an_edge_out_of_its_graph_does_not_end_in_the_next(edge: tuple[int, int]) -> None:
    good, bad = graph(5, 4, 0), graph(5, 4, 1)
    bad[1][:, 2] = torch.tensor(edge)
    with pytest.raises(ValueError, match=r"edge 2 joins nodes \[(0, 5|-1, 0)\].* 0 to 4"):
        served.join_graphs([bad, good])
    with pytest.raises(ValueError, match="4 edges, but features of 3"):
        served.join_graphs([good, (*good[:2], good[2][:3])])


def test_a_network_is_made_again_from_what_travels(model, tmp_path) -> None:
    made = serving.as_servable("tracker", model)
    one = graph(40, 100, 3)
    again = served.edge_scores(dict(made.arguments), dict(made.parameters), tmp_path)
    expected = tracking.score_segments(model, tracking_data(one))
    np.testing.assert_array_equal(again(*one).detach().numpy(), expected)
    np.testing.assert_array_equal(made.direct([each.numpy() for each in one])[0], expected)


def tracking_data(one: served.Tensors):
    from torch_geometric.data import Data

    return Data(x=one[0], edge_index=one[1], edge_attr=one[2])


def test_hits_become_the_tracks_that_the_stages_find_one_by_one(tmp_path) -> None:
    net = tracking.pretrained("ttbar-pileup50")
    events = tracking.simulate(3, 1, 5, process="gun", progress=False, cache=tmp_path)
    made = serving.as_servable("tracks", net)
    again = served.hits_to_tracks(dict(made.arguments), dict(made.parameters), tmp_path)
    requests = [
        tuple(torch.from_numpy(event.hits[name].to_numpy(copy=True)) for name in served.COLUMNS)
        for event in events
    ]
    with torch.no_grad():
        joined, split = served.join_events(requests)
        answers = split((again(*joined),))
    for event, (answer,) in zip(events, answers, strict=True):
        (seen,) = tracking.build_graphs(event, net.cuts)
        labels = tracking.find_tracks(net.model, seen)
        assert labels.max() > 5
        np.testing.assert_array_equal(answer.numpy(), labels)
    with pytest.raises(ValueError, match="columns of hits differ in length"):
        served.join_events([(*requests[0][:4], requests[0][4][:-1])])
