"""The network against a textbook version with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from sml_kernel.tracking import InteractionGNN


def textbook(model: InteractionGNN, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
    """Concatenate, gather, scatter: the formulas of the module's docstring, as they stand."""
    source, target = edge_index

    def on_ends(block, edges: Tensor, nodes: Tensor) -> Tensor:
        return block.rest(block.first(torch.cat([edges, nodes[source], nodes[target]], dim=1)))

    nodes, edges = model.node_encoder(x), model.edge_encoder(edge_attr)
    for step in range(model.settings["iterations"]):
        block = 0 if model.settings["shared"] else step
        edges = edges + on_ends(model.edge_updates[block], edges, nodes)
        arriving, leaving = torch.zeros_like(nodes), torch.zeros_like(nodes)
        arriving.scatter_add_(0, target[:, None].expand_as(edges), edges)
        leaving.scatter_add_(0, source[:, None].expand_as(edges), edges)
        update = model.node_updates[block](torch.cat([nodes, arriving, leaving], dim=1))
        nodes = nodes + update
    return on_ends(model.decoder, edges, nodes)[:, 0]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 12),
    n_edges=st.integers(0, 30),
    shared=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_same_logits_and_gradients_as_the_textbook(n, n_edges, shared, seed) -> None:
    """Isolated nodes, a single node, no edges and duplicate edges are among the random graphs."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = InteractionGNN(3, 6, hidden=8, iterations=3, shared=shared)
    x = torch.randn(n, 3, generator=generator)
    edge_index = torch.randint(n, (2, n_edges), generator=generator)
    edge_attr = torch.randn(n_edges, 6, generator=generator)
    results = []
    for forward in (model, lambda *graph: textbook(model, *graph)):
        model.zero_grad(set_to_none=False)
        logits = forward(x, edge_index, edge_attr)
        (logits**2).sum().backward()
        zero = torch.zeros(())
        gradient = [zero if p.grad is None else p.grad.clone() for p in model.parameters()]
        results.append((logits.detach(), gradient))
    (ours, our_gradient), (expected, expected_gradient) = results
    assert ours.shape == (n_edges,)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_settings_travel_with_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, hidden=8, iterations=2, shared=True).eval()
    model.save(tmp_path / "model.safetensors")
    again = InteractionGNN.load(tmp_path / "model.safetensors")
    graph = torch.randn(5, 3), torch.randint(5, (2, 9)), torch.randn(9, 6)
    assert again.settings == model.settings
    assert torch.equal(again(*graph), model(*graph))
    assert torch.equal(model(*graph), model(*graph))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_foreign_weights_and_wrong_sizes_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no settings"):
        InteractionGNN.load(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="at least 1"):
        InteractionGNN(3, 6, iterations=0)
