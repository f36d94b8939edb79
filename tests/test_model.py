"""The network against a textbook version with the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch_geometric.nn.aggr import MultiAggregation

from sml_kernel.tracking import (
    InteractionGNN,
    runner,
)
from sml_kernel.tracking.compilation import compiled
from sml_kernel.tracking.form import Form
from sml_kernel.tracking.segments import incidence


def textbook(model: InteractionGNN, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
    """Concatenate, gather, scatter: the formulas of the module's docstring, as they stand."""
    source, target = edge_index

    def on_ends(block, edges: Tensor, nodes: Tensor) -> Tensor:
        return block.rest(block.first(torch.cat([edges, nodes[source], nodes[target]], dim=1)))

    nodes, edges = model.node_encoder(x), model.edge_encoder(edge_attr)
    for step in range(model.settings["iterations"]):
        block = 0 if model.settings["shared"] else step
        edges = edges + on_ends(model.edge_updates[block], edges, nodes)
        reduced = [reduce(edges, ends, len(nodes), model.aggregations) for ends in (target, source)]
        update = model.node_updates[block](torch.cat([nodes, *reduced], dim=1))
        nodes = nodes + update
    return on_ends(model.decoder, edges, nodes)[:, 0]


def reduce(edges: Tensor, ends: Tensor, nodes: int, aggregations: tuple[str, ...]) -> Tensor:
    """[E, H] → [N, A·H], by scattering, or by torch_geometric where more than sums are asked."""
    if aggregations == ("sum",):
        empty = edges.new_zeros(nodes, edges.shape[1])
        return empty.scatter_add(0, ends[:, None].expand_as(edges), edges)
    return MultiAggregation(list(aggregations), mode="cat")(edges, ends, dim_size=nodes)


def random_graph(n: int, n_edges: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    edge_index = torch.randint(n, (2, n_edges), generator=generator)
    return x, edge_index, torch.randn(n_edges, 6, generator=generator)


def results(model: InteractionGNN, forward, graph) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the gradients of parameters and of both inputs."""
    x, edge_index, edge_attr = graph
    leaves = x.clone().requires_grad_(), edge_attr.clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    logits = forward(leaves[0], edge_index, leaves[1])
    (logits**2).sum().backward()
    wanted = [*model.parameters(), *leaves]
    return logits.detach(), [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 12),
    n_edges=st.integers(0, 30),
    shared=st.booleans(),
    aggregations=st.permutations(["sum", "mean", "max", "std"]).flatmap(
        lambda names: st.integers(1, 4).map(lambda count: names[:count])
    ),
    checkpointing=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(1, 0, False, ["sum"], True, 0)
@example(9, 29, False, ["sum", "std", "max", "mean"], False, 165)
@example(9, 30, False, ["sum"], True, 1)
@example(9, 30, False, ["sum"], False, 1)
def test_same_logits_and_gradients_as_the_textbook(
    n, n_edges, shared, aggregations, checkpointing, seed
) -> None:
    """Isolated nodes, a single node, no edges and duplicate edges are among the random graphs."""
    torch.manual_seed(seed)
    model = InteractionGNN(3, 6, 8, 3, shared, aggregations, checkpointing)
    graph = random_graph(n, n_edges, seed)
    if "std" in aggregations:  # its gradient divides by a spread that may be all but 0
        model, graph = model.double(), (graph[0].double(), graph[1], graph[2].double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "CACHED_ROWS", 7)  # several blocks, the last not full
        ours, our_gradient = results(model, model, graph)
        with torch.no_grad():
            scored = model(*graph)
    expected, expected_gradient = results(model, lambda *g: textbook(model, *g), graph)
    assert ours.shape == (n_edges,)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scored, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_repeating_gives_the_same_bits() -> None:
    """Of logits and gradients, on two threads, in blocks."""
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, hidden=16, iterations=3, aggregations=("sum", "max", "std"))
    graph, threads = random_graph(300, 2500, 0), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        runs = [results(model, model, graph) for _ in range(2)]
    finally:
        torch.set_num_threads(threads)
    for logits, gradient in runs[1:]:
        assert torch.equal(logits, runs[0][0])
        assert all(torch.equal(a, b) for a, b in zip(gradient, runs[0][1], strict=True))


@pytest.mark.parametrize("checkpointing", [True, False])
def test_bfloat16_autocast_trains(checkpointing) -> None:
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, hidden=16, iterations=2, checkpointing=checkpointing)
    graph = random_graph(20, 60, 0)
    exact, exact_gradient = results(model, model, graph)
    with torch.autocast("cpu", torch.bfloat16):  # backward inside, where weights are cached
        rough, gradient = results(model, model, graph)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    assert not torch.equal(rough.float(), exact)
    flat, exact_flat = (
        torch.cat([g.flatten() for g in all_]) for all_ in (gradient, exact_gradient)
    )
    assert float((flat - exact_flat).norm() / exact_flat.norm()) < 0.05


def test_frozen_weights_get_no_gradient() -> None:
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, hidden=8, iterations=2)
    model.edge_updates.requires_grad_(False)
    graph = random_graph(6, 20, 0)
    model(*graph).sum().backward()
    assert all(p.grad is None for p in model.edge_updates.parameters())
    ours = model.node_encoder[0].weight.grad.clone()
    model.zero_grad()
    textbook(model, *graph).sum().backward()
    torch.testing.assert_close(ours, model.node_encoder[0].weight.grad, rtol=1e-4, atol=1e-4)


def test_padding_to_a_bucket() -> None:
    """Every size fits, wastes an eighth at most, and few buckets hold them all."""
    counts = range(1, 3_000_000, 997)
    buckets = {count: runner.bucket(count) for count in counts}
    assert all(count <= rows for count, rows in buckets.items())
    assert all(rows <= 1.13 * count for count, rows in buckets.items() if count > 2048)
    assert len(set(buckets.values())) < 100


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: no g++")
def test_compiled_gives_the_same_numbers(monkeypatch) -> None:
    """One perceptron of the network, as each takes seconds to compile; the last block is padded."""
    monkeypatch.setattr(runner, "CACHED_ROWS", 16)
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, hidden=8, iterations=1)
    fast, found = compiled(model), []
    for network in (model, fast):
        nodes = torch.arange(40.0).sin().view(5, 8).requires_grad_()
        edges = torch.arange(8.0 * 23).cos().view(23, 8).requires_grad_()
        graph = incidence(random_graph(5, 23, 0)[1], 5)
        out, sums = network.runner.edges(model.edge_updates[0], [edges], nodes, graph, True, True)
        wanted = [nodes, edges, *model.edge_updates[0].parameters()]
        loss = (out**2).sum() + sums.sin().sum()
        found.append([out, sums, *torch.autograd.grad(loss, wanted)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert fast.runner.compiles
    assert not model.runner.compiles


def test_without_a_compiler_it_says_so(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    torch.manual_seed(0)
    model, graph = InteractionGNN(3, 6, hidden=8, iterations=1), random_graph(4, 9, 0)
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler"):
        uncompiled = compiled(model)
    assert torch.equal(uncompiled(*graph), model(*graph))


def test_files_of_older_versions_are_read() -> None:
    """They hold five settings and weights by these names: so does a default network."""
    model = InteractionGNN(3, 6, hidden=8, iterations=2)
    assert list(model.settings) == [
        "node_features", "edge_features", "hidden", "iterations", "shared"
    ]  # fmt: skip
    names = set(model.state_dict())
    assert {"edge_updates.1.first.weight", "edge_updates.1.rest.2.bias"} <= names
    assert {"node_updates.1.4.weight", "decoder.rest.2.bias", "edge_encoder.0.weight"} <= names


def test_settings_travel_with_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = InteractionGNN(
        3, 6, 8, 2, True, ["mean", "sum"], False, Form(skip="concat", decoder_layers=(1, 2))
    ).eval()
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
    with pytest.raises(ValueError, match=r"not \['median'\]"):
        InteractionGNN(3, 6, aggregations=["sum", "median"])
    with pytest.raises(ValueError, match="no skip 'dense'"):
        Form(skip="dense")
    model, (x, edge_index, edge_attr) = InteractionGNN(3, 6, 8, 1), random_graph(4, 9, 0)
    with pytest.raises(ValueError, match=r"names nodes outside 0\.\.2"):
        model(x[:3], edge_index, edge_attr)
    with pytest.raises(ValueError, match="takes edge features"):
        model(x, edge_index)
