"""acorn's checkpoints against a forward pass written from its layout, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import MultiAggregation

from sml_kernel.tracking import InteractionGNN

HIDDEN, ITERATIONS = 8, 3


class Foreign:
    """A class that a checkpoint of somebody else's program may hold."""


def stack(features: int, widths: list[int], last: str | None, norm: bool, last_norm: bool):
    """A perceptron as acorn lays it out: norms have no weights, the last layer its own rule."""
    parts: list[nn.Module] = []
    for place, width in enumerate(widths):
        final = place == len(widths) - 1
        parts.append(nn.Linear(features, width))
        if last_norm and last if final else norm:
            parts.append(nn.LayerNorm(width, elementwise_affine=False))
        if last if final else True:
            parts.append(getattr(nn, last if final and last else "SiLU")())
        features = width
    return nn.Sequential(*parts)


def first_family(aggregation: list[str], recurrent: bool, last: str | None) -> tuple[Any, Any]:
    """InteractionGNN: nodes first, columns [source, target, edge], decoder on both hits."""
    settings = {
        "node_features": ["r", "phi", "z"], "hidden": HIDDEN, "n_graph_iters": ITERATIONS,
        "nb_node_layer": 2, "nb_edge_layer": 3, "layernorm": True, "hidden_activation": "SiLU",
        "output_activation": last, "aggregation": aggregation, "node_net_recurrent": recurrent,
        "edge_net_recurrent": recurrent, "batchnorm": False,
    }  # fmt: skip
    node, edge, count = [HIDDEN] * 2, [HIDDEN] * 3, 1 if recurrent else ITERATIONS
    sums = (1 + 2 * len(aggregation)) * HIDDEN
    nodes = [stack(sums, node, last, True, True) for _ in range(count)]
    edges = [stack(3 * HIDDEN, edge, last, True, True) for _ in range(count)]
    parts = {
        "node_encoder": stack(3, node, last, True, True),
        "edge_encoder": stack(2 * HIDDEN, edge, last, True, True),
        "output_edge_classifier": stack(3 * HIDDEN, [*edge, 1], None, True, False),
    }
    if recurrent:
        parts |= {"node_network": nodes[0], "edge_network": edges[0]}
    else:
        parts |= {"node_networks": nn.ModuleList(nodes), "edge_networks": nn.ModuleList(edges)}
    modules = nn.ModuleDict(parts)

    def forward(x: Tensor, edge_index: Tensor) -> Tensor:
        start, end = edge_index
        reduce = MultiAggregation(aggregation, mode="cat")
        x = modules["node_encoder"](x)
        e = modules["edge_encoder"](torch.cat([x[start], x[end]], 1))
        for step in range(ITERATIONS):
            reduced = [reduce(e, ends, dim_size=len(x)) for ends in (end, start)]
            x = nodes[step % count](torch.cat([x, *reduced], 1))
            e = edges[step % count](torch.cat([x[start], x[end], e], 1))
        return modules["output_edge_classifier"](torch.cat([x[start], x[end], e], 1))[:, 0]

    return {"hyper_parameters": settings, "state_dict": modules.state_dict()}, forward


def second_family(concat: bool, apart: bool, features: bool, recurrent: bool) -> tuple[Any, Any]:
    """InteractionGNN2: edges first, columns [edge, source, target] and [sums, node]."""
    settings = {
        "node_features": ["r", "phi", "z"], "hidden": HIDDEN, "n_graph_iters": ITERATIONS,
        "edge_features": ["dr", "dphi"] if features else [], "n_node_net_layers": 3,
        "n_edge_net_layers": 3, "n_edge_decoder_layers": 2, "layernorm": True, "concat": concat,
        "in_out_diff_agg": apart, "node_net_recurrent": recurrent, "edge_net_recurrent": recurrent,
        "hidden_activation": "SiLU", "output_activation": "Tanh", "output_layer_norm": False,
        "edge_output_transform_final_activation": None, "batchnorm": False, "checkpointing": True,
    }  # fmt: skip
    wide, three, count = (2 if concat else 1) * HIDDEN, [HIDDEN] * 3, 1 if recurrent else ITERATIONS
    into_node = wide + (2 if apart else 1) * HIDDEN
    nodes = [stack(into_node, three, "Tanh", True, False) for _ in range(count)]
    edges = [stack(3 * wide, three, "Tanh", True, False) for _ in range(count)]
    modules = nn.ModuleDict(
        {
            "node_encoder": stack(3, three, "Tanh", True, False),
            "edge_encoder": stack(2 if features else 2 * HIDDEN, three, "Tanh", True, False),
            "node_network": nodes[0] if recurrent else nn.ModuleList(nodes),
            "edge_network": edges[0] if recurrent else nn.ModuleList(edges),
            "edge_decoder": stack(HIDDEN, [HIDDEN] * 2, "Tanh", True, False),
            "edge_output_transform": stack(HIDDEN, [HIDDEN, 1], None, True, False),
        }
    )

    def forward(x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        source, target = edge_index
        x = first_x = modules["node_encoder"](x)
        raw = torch.cat([x[source], x[target]], 1) if edge_attr is None else edge_attr
        e = first_e = modules["edge_encoder"](raw)
        for step in range(ITERATIONS):
            if concat:
                x, e = torch.cat([x, first_x], 1), torch.cat([e, first_e], 1)
            e = edges[step % count](torch.cat([e, x[source], x[target]], 1))
            sums = [x.new_zeros(len(x), HIDDEN).index_add(0, i, e) for i in (target, source)]
            both = torch.cat(sums, 1) if apart else sums[0] + sums[1]
            x = nodes[step % count](torch.cat([both, x], 1))
            out = modules["edge_output_transform"](modules["edge_decoder"](e))
        return out[:, 0]

    return {"hyper_parameters": settings, "state_dict": modules.state_dict()}, forward


def graph(features: int) -> tuple[Tensor, ...]:
    edge_attr = (torch.randn(30, features),) if features else ()
    return torch.randn(12, 3), torch.randint(11, (2, 30)), *edge_attr


@pytest.mark.parametrize(
    ("aggregation", "recurrent", "last"),
    [
        (["sum"], True, None),
        (["sum", "mean", "max", "std"], False, "Tanh"),
        (["max"], True, "SiLU"),
    ],
)
def test_first_family(tmp_path: Path, aggregation, recurrent, last) -> None:
    torch.manual_seed(0)
    held, forward = first_family(aggregation, recurrent, last)
    torch.save(held, tmp_path / "gnn.ckpt")
    network = InteractionGNN.from_acorn(tmp_path / "gnn.ckpt", output_layer_norm=True)
    given = graph(0)
    torch.testing.assert_close(network(*given), forward(*given), rtol=1e-5, atol=1e-5)
    network.save(tmp_path / "gnn.safetensors")
    again = InteractionGNN.load(tmp_path / "gnn.safetensors")
    assert torch.equal(again(*given), network(*given))


@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(("features", "recurrent"), [(True, False), (False, True)])
def test_second_family(tmp_path: Path, concat, apart, features, recurrent) -> None:
    torch.manual_seed(0)
    held, forward = second_family(concat, apart, features, recurrent)
    torch.save(held, tmp_path / "gnn.ckpt")
    network = InteractionGNN.from_acorn(tmp_path / "gnn.ckpt")
    given = graph(2 if features else 0)
    torch.testing.assert_close(network(*given), forward(*given), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    held, _ = second_family(True, True, True, True)
    path = tmp_path / "gnn.ckpt"

    def refused(change: dict[str, Any], match: str) -> None:
        torch.save(held | change, path)
        with pytest.raises(ValueError, match=match):
            InteractionGNN.from_acorn(path)

    given = held["hyper_parameters"]
    refused({"callback": Foreign()}, "more than tensors and plain values")
    refused({"state_dict": {"a.weight": torch.ones(1)}}, "neither acorn's InteractionGNN")
    refused({"hyper_parameters": given | {"batchnorm": True}}, "trained with batchnorm")
    refused({"hyper_parameters": given | {"hidden": 9}}, "by its settings")
    refused({"hyper_parameters": given | {"n_edge_decoder_layers": 1}}, "4 linear maps in the")
    undecided = {name: value for name, value in given.items() if name != "output_layer_norm"}
    refused({"hyper_parameters": undecided}, "give output_layer_norm")
    torch.save(held["state_dict"], path)
    with pytest.raises(ValueError, match="no Lightning checkpoint"):
        InteractionGNN.from_acorn(path)
