"""Graphs in parts: no edge lost or counted twice, and the network's answers as on the whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from sml_kernel.tracking import Form, InteractionGNN, join_parts, split_graph
from sml_kernel.tracking.step import edge_loss


def ring(hits: int, edges: int, reach: int, seed: int = 0) -> Data:
    """Hits around a circle, each edge to one of the next `reach`; some twice, some hits alone."""
    random = torch.Generator().manual_seed(seed)
    source = torch.randint(hits, (edges,), generator=random)
    step = torch.randint(1, reach + 1, (edges,), generator=random)
    phi = torch.linspace(-1, 1, hits + 1)[1:]
    return Data(
        x=torch.stack([torch.rand(hits, generator=random), phi, phi.sin()], dim=1),
        edge_index=torch.stack([source, (source + step) % hits]),
        edge_attr=torch.randn(edges, 6, generator=random),
        y=torch.randint(2, (edges,), generator=random).float(),
        weight=torch.rand(edges, generator=random) + 0.1,
        hit_id=torch.arange(hits) + 1000,
        name="ring",
    )


@settings(max_examples=60, deadline=None)
@given(
    hits=st.integers(1, 80),
    edges=st.integers(0, 200),
    reach=st.integers(1, 80),
    max_edges=st.integers(1, 250),
    halo=st.integers(0, 3),
    seed=st.integers(0, 5),
)
def test_every_edge_is_owned_once(hits, edges, reach, max_edges, halo, seed) -> None:
    graph = ring(hits, edges, reach, seed)
    try:
        parts = split_graph(graph, max_edges, halo)
    except ValueError:
        assert halo > 0  # without a halo any graph can be split
        return
    if edges <= max_edges:
        assert parts == [graph]
        return
    own = [int(part.own.sum()) for part in parts]
    assert sum(own) == edges
    assert max(own) - min(own) <= 1
    weights = [torch.where(part.own, part.weight, 0) for part in parts]
    assert torch.equal(join_parts(parts, weights), graph.weight)
    for part, weight in zip(parts, weights, strict=True):
        assert part.num_edges <= max_edges
        assert torch.equal(part.weight, weight)
        assert torch.equal(part.node_id[part.edge_index], graph.edge_index[:, part.edge_id])
        assert torch.equal(part.edge_attr, graph.edge_attr[part.edge_id])
        assert torch.equal(part.x, graph.x[part.node_id])
        assert torch.equal(part.hit_id, graph.hit_id[part.node_id])


@pytest.mark.parametrize(
    "form", [Form(), Form(nodes_first=True, decodes_ends=False), Form(encodes_ends=True)]
)
def test_a_halo_of_all_iterations_gives_the_whole_graphs_numbers(form: Form) -> None:
    torch.manual_seed(0)
    graph, iterations = ring(400, 1600, 3), 3
    model = InteractionGNN(3, 0 if form.encodes_ends else 6, 8, iterations, form=form).double()
    for name in ("x", "edge_attr", "y", "weight"):
        graph[name] = graph[name].double()

    def run(parts: list[Data]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        logits = [model(part.x, part.edge_index, part.edge_attr) for part in parts]
        loss = sum(edge_loss(each, p.y, p.weight) for each, p in zip(logits, parts, strict=True))
        loss.backward()
        gradients = [
            weight.grad.clone() for weight in model.parameters() if weight.grad is not None
        ]
        return join_parts(parts, [each.detach() for each in logits]), loss.detach(), gradients

    parts = split_graph(graph, 700, iterations)
    assert len(parts) > 2
    for found, expected in zip(run(parts), run([graph]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    fewer = split_graph(graph, 700, iterations - 2)
    assert (run(fewer)[0] - run([graph])[0]).abs().max() > 1e-6


def test_one_hop_holds_the_edges_at_the_same_hits_also_across_the_seam() -> None:
    graph = ring(60, 240, 2)
    parts = split_graph(graph, 120, halo=1)
    for part in parts:
        own = graph.edge_index[:, part.edge_id[part.own]].unique()
        near = torch.isin(graph.edge_index, own).any(dim=0).nonzero().squeeze(1)
        assert torch.equal(part.edge_id, near)
    phi = graph.x[graph.edge_index[0], 1]
    first = parts[0].edge_id[~parts[0].own]
    assert phi[first].max() > 0.9  # the lowest sector reaches the highest hits


def test_a_halo_too_large_for_a_part_is_refused_with_its_size() -> None:
    graph = ring(400, 1600, 3)
    with pytest.raises(ValueError, match=r"part of 60 edges is too small: the halo of 9 hops"):
        split_graph(graph, 60, 9)


def test_phi_may_be_given_and_must_fit() -> None:
    graph = ring(50, 200, 3)
    phi = np.random.default_rng(0).permutation(50)
    parts = split_graph(graph, 60, 0, phi=phi)
    spans = [phi[graph.edge_index[0, part.edge_id]] for part in parts]
    assert all(low.max() <= high.min() for low, high in itertools.pairwise(spans))
    with pytest.raises(ValueError, match="one finite number for each of 50 hits"):
        split_graph(graph, 60, 0, phi=phi[:-1])


def test_values_of_some_parts_are_no_whole() -> None:
    parts = split_graph(ring(50, 200, 3), 60, 0)
    values = [part.weight for part in parts]
    with pytest.raises(ValueError, match="not all parts"):
        join_parts(parts[1:], values[1:])
    with pytest.raises(ValueError, match="not one an edge"):
        join_parts(parts, [value[:-1] for value in values])
