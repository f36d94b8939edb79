"""The interaction network written as its formulas stand, with the weights of ours.

What the benchmarks compare with: once in plain torch, which concatenates edge and node states,
gathers and scatters, and once as torch_geometric has one write it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from sml_kernel.tracking import InteractionGNN


def textbook(model: InteractionGNN, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
    """Concatenate, gather, scatter: [N, F], [2, E], [E, K] → [E] logits."""
    source, target = edge_index
    nodes, edges = model.node_encoder(x), model.edge_encoder(edge_attr)
    blocks = zip(model.edge_updates, model.node_updates, strict=True)
    for edge_update, node_update in blocks:
        whole = torch.cat([edges, nodes[source], nodes[target]], dim=1)
        edges = edges + edge_update.rest(edge_update.first(whole))
        arriving = torch.zeros_like(nodes, dtype=edges.dtype)
        leaving = torch.zeros_like(arriving)
        arriving = arriving.scatter_add(0, target[:, None].expand_as(edges), edges)
        leaving = leaving.scatter_add(0, source[:, None].expand_as(edges), edges)
        nodes = nodes + node_update(torch.cat([nodes, arriving, leaving], dim=1))
    whole = torch.cat([edges, nodes[source], nodes[target]], dim=1)
    return model.decoder.rest(model.decoder.first(whole))[:, 0]


class Geometric(nn.Module):
    """The same model as torch_geometric has one write it: an edge update and two propagations."""

    def __init__(self, model: InteractionGNN) -> None:
        super().__init__()
        self.model = model
        self.arriving = _Messages(flow="source_to_target")
        self.leaving = _Messages(flow="target_to_source")

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """[N, F], [2, E], [E, K] → [E] logits."""
        model = self.model
        nodes, edges = model.node_encoder(x), model.edge_encoder(edge_attr)
        for edge_update, node_update in zip(model.edge_updates, model.node_updates, strict=True):
            whole = self.arriving(x=nodes, edge_index=edge_index, edges=edges)
            edges = edges + edge_update.rest(edge_update.first(whole))
            sums = [part.sums(edge_index, edges, len(x)) for part in (self.arriving, self.leaving)]
            nodes = nodes + node_update(torch.cat([nodes, *sums], dim=1))
        whole = self.arriving(x=nodes, edge_index=edge_index, edges=edges)
        return model.decoder.rest(model.decoder.first(whole)).squeeze(1)


class _Messages(MessagePassing):
    def __init__(self, flow: str) -> None:
        super().__init__(aggr="sum", flow=flow)

    def forward(self, x: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        return self.edge_updater(edge_index, x=x, edges=edges)

    def edge_update(self, x_i: Tensor, x_j: Tensor, edges: Tensor) -> Tensor:
        return torch.cat([edges, x_j, x_i], dim=1)

    def sums(self, edge_index: Tensor, edges: Tensor, nodes: int) -> Tensor:
        return self.propagate(edge_index, edges=edges, size=(nodes, nodes))

    def message(self, edges: Tensor) -> Tensor:
        return edges


def resident_peak_bytes() -> int:
    """The most memory this process has had; unlike ``ru_maxrss`` not handed on by its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/self/status has no VmHWM: this kernel does not tell peak memory")
