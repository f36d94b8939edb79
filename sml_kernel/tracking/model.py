"""The interaction network that scores candidate segments.

With node states h and edge states e, encoded from the inputs, one iteration is

.. math::
    e_{ij} &← e_{ij} + φ_e([e_{ij}, h_i, h_j]) \\\\
    h_i &← h_i + φ_h([h_i, Σ_j e_{ji}, Σ_j e_{ij}])

where i → j runs from inner to outer hit, and a decoder turns the last edge state, with those of its
hits, into a logit (Battaglia et al. 2016, arXiv:1612.00222; Ju et al. 2021, arXiv:2103.06995).
`Form` says what acorn's members of the family do otherwise.

The first linear map of φ_e on the concatenation is written as the sum
W_e e + (W_i h)[i] + (W_j h)[j]: the same numbers, but the products with h are made once a node
instead of once an edge. Edges are sorted once (`segments`), and all that is done to rows is done
in blocks that stay in the cache (`blocks`).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sml_kernel.tracking.form import Form
from sml_kernel.tracking.runner import OnEnds, Runner
from sml_kernel.tracking.segments import AGGREGATIONS, Incidence, aggregate, incidence


class InteractionGNN(nn.Module):
    """Edge-classifying interaction network.

    Parameters
    ----------
    node_features, edge_features
        F and K, the numbers of input features. K is 0 for a form that encodes ends.
    hidden
        Width of node and edge states.
    iterations
        Message-passing steps.
    shared
        Use the same weights in every iteration.
    aggregations
        What edge states are reduced by at each hit, arriving and leaving apart: any of sum, mean,
        max and std.
    checkpointing
        Make internals again for the gradient instead of keeping them: less memory, the same
        numbers. None: on a CPU for arrays beyond its cache, where it costs no time, else not.
    form
        Which member of the family; None is the one above.

    Raises
    ------
    ValueError
        A size below 1, or an aggregation that there is not.
    """

    def __init__(
        self,
        node_features: int,
        edge_features: int,
        hidden: int = 128,
        iterations: int = 8,
        shared: bool = False,
        aggregations: Sequence[str] = ("sum",),
        checkpointing: bool | None = None,
        form: Form | None = None,
    ) -> None:
        super().__init__()
        form = form or Form()
        self.settings = _settings(
            node_features, edge_features, hidden, iterations, shared, form, aggregations
        )
        if checkpointing is not None:
            self.settings["checkpointing"] = checkpointing
        self.form, self.aggregations = form, tuple(aggregations)
        self.runner = Runner(checkpointing)
        states, blocks = form.states * hidden, 1 if shared else iterations
        into_node = states + 2 * len(self.aggregations) * hidden
        node, edge = form.node_layers, form.edge_layers
        self.node_encoder = nn.Sequential(*form.perceptron(node_features, hidden, node))
        self.edge_encoder: nn.Module
        if form.encodes_ends:
            self.edge_encoder = OnEnds(form.perceptron(2 * hidden, hidden, edge), 0)
        else:
            self.edge_encoder = nn.Sequential(*form.perceptron(edge_features, hidden, edge))
        self.edge_updates = nn.ModuleList(
            OnEnds(form.perceptron(3 * states, hidden, edge), states) for _ in range(blocks)
        )
        self.node_updates = nn.ModuleList(
            nn.Sequential(*form.perceptron(into_node, hidden, node)) for _ in range(blocks)
        )
        self.decoder: nn.Module
        if form.decodes_ends:
            self.decoder = OnEnds(form.decoder(3 * hidden, hidden), hidden)
        else:
            self.decoder = nn.Sequential(*form.decoder(hidden, hidden))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """Score segments.

        Parameters
        ----------
        x
            [N, F] node features.
        edge_index
            [2, E] inner and outer hit of each candidate.
        edge_attr
            [E, K] edge features; None for a form that encodes ends.

        Returns
        -------
        Tensor
            [E] logits; the score of a segment is their sigmoid.
        """
        graph = incidence(edge_index, len(x))
        residual, concat = self.form.skip == "residual", self.form.skip == "concat"
        nodes = first_nodes = self.runner.rows(self.node_encoder, [x], False)
        edges = first_edges = self._encode_edges(edge_attr, nodes, graph)
        sums = None
        turns = ("nodes", "edges") if self.form.nodes_first else ("edges", "nodes")
        iterations = self.settings["iterations"]
        for step, turn in itertools.product(range(iterations), turns):
            block, last = step % len(self.edge_updates), step == iterations - 1
            seen = torch.cat([nodes, first_nodes], dim=1) if concat else nodes
            if turn == "edges":
                edges, sums = self.runner.edges(
                    self.edge_updates[block],
                    [edges, first_edges] if concat else [edges],
                    seen,
                    graph,
                    residual,
                    collects=not (last and self.form.nodes_first),
                    overwrites=edges is not first_edges or not concat,
                )
            elif not last or self.form.decodes_ends or self.form.nodes_first:
                reduced = aggregate(edges, sums, graph, self.aggregations)
                nodes = self.runner.rows(self.node_updates[block], [seen, reduced], residual)
        logits = self._decode(edges, nodes, graph).squeeze(1)
        return torch.empty_like(logits).index_copy(0, graph.order, logits)

    def _encode_edges(self, edge_attr: Tensor | None, nodes: Tensor, graph: Incidence) -> Tensor:
        if self.form.encodes_ends:
            nothing = nodes.new_empty(len(graph.order), 0)
            return self.runner.edges(self.edge_encoder, [nothing], nodes, graph)[0]
        if edge_attr is None:
            raise ValueError("this network takes edge features: edge_attr is [E, K]")
        return self.runner.rows(self.edge_encoder, [edge_attr[graph.order]], False)

    def _decode(self, edges: Tensor, nodes: Tensor, graph: Incidence) -> Tensor:
        """[E, 1] logits of the sorted edges."""
        if self.form.decodes_ends:
            return self.runner.edges(self.decoder, [edges], nodes, graph)[0]
        return self.runner.rows(self.decoder, [edges], False)

    def save(
        self, path: str | os.PathLike[str], beside: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Write weights and settings as one safetensors file, at once or not at all.

        `beside` them goes into the file's metadata, by other names than ``settings``.
        """
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        weights = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        save_file(weights, partial, metadata={**beside, "settings": json.dumps(self.settings)})
        partial.replace(path)

    def servable(self, name: str) -> dict[str, Any]:
        """What `sml_kernel.serving` serves of it: graphs in, the score of each edge out."""
        from sml_kernel.tracking import served

        return served.network(self)

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
        model = cls.from_settings(json.loads(settings))
        model.load_state_dict(load_file(path))
        return model.eval()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> InteractionGNN:
        """A new network with the `settings` of another."""
        given = dict(settings)
        form = Form(**given.pop("form", {}))
        return cls(**given, form=form)

    @classmethod
    def from_acorn(
        cls, checkpoint: str | os.PathLike[str], output_layer_norm: bool | None = None
    ) -> InteractionGNN:
        """Read a Lightning checkpoint of acorn's InteractionGNN or InteractionGNN2.

        Parameters
        ----------
        checkpoint
            The ``.ckpt`` file. Only tensors and plain values are loaded from it, never code.
        output_layer_norm
            Whether perceptrons normalise before their output activation. Versions of acorn differ;
            needed only where the checkpoint's settings do not say and it matters.

        Returns
        -------
        InteractionGNN
            With the same logits on the same features, which the caller prepares as acorn's stage
            does (its scales, and its copies of features for strip hits of the endcaps).

        Raises
        ------
        ValueError
            The file holds more than tensors and plain values, another network, or settings that
            are not read (batch norm, undirected graphs).
        """
        from sml_kernel.tracking import acorn

        return acorn.read(checkpoint, output_layer_norm)


def _settings(
    node_features: int,
    edge_features: int,
    hidden: int,
    iterations: int,
    shared: bool,
    form: Form,
    aggregations: Sequence[str],
) -> dict[str, Any]:
    """What makes the network again; what is not in it is the default, as in older files."""
    sizes = [node_features, hidden, iterations, *([] if form.encodes_ends else [edge_features])]
    if min(sizes) < 1:
        raise ValueError("node_features, edge_features, hidden and iterations are at least 1")
    unknown = sorted(set(aggregations) - set(AGGREGATIONS))
    if unknown or not aggregations:
        raise ValueError(
            f"aggregations are one or more of {', '.join(AGGREGATIONS)}, not {unknown or 'none'}"
        )
    settings: dict[str, Any] = {
        "node_features": node_features,
        "edge_features": edge_features,
        "hidden": hidden,
        "iterations": iterations,
        "shared": shared,
    }
    if tuple(aggregations) != ("sum",):
        settings["aggregations"] = list(aggregations)
    if form != Form():
        settings["form"] = asdict(form)
    return settings
