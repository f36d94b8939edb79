"""The interaction network that scores candidate segments.

With node states h and edge states e, encoded from the inputs, one iteration is

.. math::
    e_{ij} &← e_{ij} + φ_e([e_{ij}, h_i, h_j]) \\\\
    h_i &← h_i + φ_h([h_i, Σ_j e_{ji}, Σ_j e_{ij}])

where i → j runs from inner to outer hit, and a decoder turns the last edge state, with those of its
hits, into a logit (Battaglia et al. 2016, arXiv:1612.00222; Ju et al. 2021, arXiv:2103.06995).

The first linear map of φ_e on the concatenation is written as the sum
W_e e + (W_i h)[i] + (W_j h)[j]: the same numbers, but the products with h are made once a node
instead of once an edge.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class InteractionGNN(nn.Module):
    """Edge-classifying interaction network.

    Parameters
    ----------
    node_features, edge_features
        F and K, the numbers of input features.
    hidden
        Width of node and edge states.
    iterations
        Message-passing steps.
    shared
        Use the same weights in every iteration.
    """

    def __init__(
        self,
        node_features: int,
        edge_features: int,
        hidden: int = 128,
        iterations: int = 8,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if min(node_features, edge_features, hidden, iterations) < 1:
            raise ValueError("node_features, edge_features, hidden and iterations are at least 1")
        self.settings = {
            "node_features": node_features,
            "edge_features": edge_features,
            "hidden": hidden,
            "iterations": iterations,
            "shared": shared,
        }
        self.node_encoder = _mlp(node_features, hidden)
        self.edge_encoder = _mlp(edge_features, hidden)
        blocks = 1 if shared else iterations
        self.edge_updates = nn.ModuleList(_EdgeMLP(hidden, hidden) for _ in range(blocks))
        self.node_updates = nn.ModuleList(_mlp(3 * hidden, hidden) for _ in range(blocks))
        self.decoder = _EdgeMLP(hidden, 1, normalise=False)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Score segments.

        Parameters
        ----------
        x
            [N, F] node features.
        edge_index
            [2, E] inner and outer hit of each candidate.
        edge_attr
            [E, K] edge features.

        Returns
        -------
        Tensor
            [E] logits; the score of a segment is their sigmoid.
        """
        source, target = edge_index
        nodes, edges = self.node_encoder(x), self.edge_encoder(edge_attr)
        for step in range(self.settings["iterations"]):
            block = step % len(self.edge_updates)
            edges = edges + self.edge_updates[block](edges, nodes, source, target)
            arriving = torch.zeros_like(nodes).index_add(0, target, edges)
            leaving = torch.zeros_like(nodes).index_add(0, source, edges)
            nodes = nodes + self.node_updates[block](torch.cat([nodes, arriving, leaving], dim=1))
        return self.decoder(edges, nodes, source, target).squeeze(1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and settings as one safetensors file, at once or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        weights = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        save_file(weights, partial, metadata={"settings": json.dumps(self.settings)})
        partial.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> InteractionGNN:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file holds no settings: it is not from `save`.
        """
        with safe_open(path, "pt") as stream:
            settings = (stream.metadata() or {}).get("settings")
        if settings is None:
            raise ValueError(f"{path} was not written by InteractionGNN.save: it has no settings")
        model = cls(**json.loads(settings))
        model.load_state_dict(load_file(path))
        return model.eval()


class _EdgeMLP(nn.Module):
    """Two-layer perceptron on [e, h_source, h_target], its first linear map split in three."""

    def __init__(self, hidden: int, out: int, normalise: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(3 * hidden, hidden)
        self.rest = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, out),
            *([nn.LayerNorm(out), nn.SiLU()] if normalise else []),
        )

    def forward(self, edges: Tensor, nodes: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """[E, H] edge states, [N, H] node states, [E] and [E] their ends → [E, out]."""
        on_edge, on_source, on_target = self.first.weight.chunk(3, dim=1)
        first = nn.functional.linear(edges, on_edge, self.first.bias)
        first = first + (nodes @ on_source.T).index_select(0, source)
        return self.rest(first + (nodes @ on_target.T).index_select(0, target))


def _mlp(features: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
    )
