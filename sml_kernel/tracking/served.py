"""What a server is told of a network and of the whole chain from hits to tracks.

`network` and `chain` give the arguments of `sml_kernel.serving.Servable`, which this package does
not import; the server imports the builders and mergers that they name. A request is one event.
Events that wait together become one graph without edges between them, so that one pass of the
network serves all: each sum is over an event's own edges, and its scores are those it would have
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sml_kernel.tracking.cuts import Cuts
from sml_kernel.tracking.events import HIT_COLUMNS, PARTICLE_COLUMNS, Event
from sml_kernel.tracking.graphs import candidates
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.tracks import METHODS, join_segments

Tensors = tuple[Tensor, ...]
Split = Callable[[Tensors], list[Tensors]]
#: Inputs of the chain, by the names of an event's columns of hits; a row a hit each.
COLUMNS = ("x", "y", "z", "volume_id", "layer_id")
_HERE = __name__


def network(model: InteractionGNN) -> dict[str, Any]:
    """A network that scores the edges of a graph, [E] between 0 and 1."""
    settings = model.settings
    fields = [("x", "float32", (-1, settings["node_features"])), ("edge_index", "int64", (2, -1))]
    if not model.form.encodes_ends:
        fields.append(("edge_attr", "float32", (-1, settings["edge_features"])))
    return {
        "call": EdgeScores(model),
        "example": _graph(fields),
        "builder": f"{_HERE}:edge_scores",
        "arguments": settings,
        "parameters": model.state_dict(),
        "inputs": fields,
        "outputs": [("scores", "float32", (-1,))],
        "ragged": True,
        "merge": f"{_HERE}:join_graphs",
    }


def chain(
    model: InteractionGNN, cuts: Cuts, *, cut: float = 0.5, method: str = "walkthrough"
) -> dict[str, Any]:
    """Hits to tracks: graph, scores and `join_segments`; [N] the track of each hit, −1 for none.

    Parameters
    ----------
    model, cuts
        A network, and the cuts of the graphs that it knows.
    cut, method
        See `join_segments`.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    return {
        "call": Chain(model, cuts, cut, method),
        "example": _hits(cuts),
        "builder": f"{_HERE}:hits_to_tracks",
        "arguments": {
            "network": model.settings,
            "cuts": {"min_pt_gev": cuts.min_pt_gev, "table": cuts.table.to_dict("list")},
            "cut": cut,
            "method": method,
        },
        "parameters": model.state_dict(),
        "inputs": [(name, HIT_COLUMNS[name], (-1,)) for name in COLUMNS],
        "outputs": [("track", "int64", (-1,))],
        "ragged": True,
        "merge": f"{_HERE}:join_events",
    }


class EdgeScores(nn.Module):
    """The scores of a network's edges, as `score_segments` gives them."""

    def __init__(self, model: InteractionGNN) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """[N, F], [2, E] and [E, K] → [E] scores."""
        return torch.sigmoid(self.model(x, edge_index, edge_attr))


class Chain(nn.Module):
    """From the hits of one event, or of several behind each other, to the track of each hit."""

    def __init__(self, model: InteractionGNN, cuts: Cuts, cut: float, method: str) -> None:
        super().__init__()
        self.scores, self.cuts, self.cut, self.method = EdgeScores(model), cuts, cut, method

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        z: Tensor,
        volume_id: Tensor,
        layer_id: Tensor,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """[N] each, mm, and how many hits each event has (None: it is one) → [N] tracks."""
        device = next(self.scores.parameters()).device
        columns = [each.cpu().numpy() for each in (x, y, z, volume_id, layer_id)]
        ends = [len(x)] if sizes is None else np.cumsum(sizes.cpu().numpy()).tolist()
        parts = [[each[a:b] for each in columns] for a, b in zip([0, *ends], ends, strict=False)]
        graphs = [candidates(_event(part), self.cuts) for part in parts]
        inputs = [(each.x, each.edge_index, each.edge_attr) for each in graphs]
        joined, split = join_graphs(inputs)
        scores = split((self.scores(*(each.to(device) for each in joined)).cpu(),))
        labels = [
            join_segments(graph, each.numpy(), cut=self.cut, method=self.method)
            for graph, (each,) in zip(graphs, scores, strict=True)
        ]
        return torch.from_numpy(np.concatenate(labels).astype(np.int64))


def edge_scores(settings: Mapping[str, Any], parameters: dict[str, Tensor], _: Path) -> EdgeScores:
    """Builder of the server, of `network`."""
    model = InteractionGNN.from_settings(settings)
    model.load_state_dict(parameters)
    return EdgeScores(model)


def hits_to_tracks(
    arguments: Mapping[str, Any], parameters: dict[str, Tensor], folder: Path
) -> Chain:
    """Builder of the server, of `chain`."""
    model = edge_scores(arguments["network"], parameters, folder).model
    cuts = Cuts(pd.DataFrame(arguments["cuts"]["table"]), arguments["cuts"]["min_pt_gev"])
    return Chain(model, cuts, arguments["cut"], arguments["method"])


def join_graphs(requests: Sequence[Tensors]) -> tuple[Tensors, Split]:
    """One graph of many, without edges between them.

    Parameters
    ----------
    requests
        Of each graph ``x`` [N, F], ``edge_index`` [2, E], and features of edges [E, K] if there
        are any.

    Raises
    ------
    ValueError
        An edge of a graph ends outside of it (it would end in its neighbour), or there is not a
        row of features for each edge.
    """
    for request in requests:
        _check_graph(*request)
    first = np.cumsum([0, *(len(request[0]) for request in requests)])
    x = torch.cat([request[0] for request in requests])
    moved = [request[1] + int(start) for request, start in zip(requests, first, strict=False)]
    features = tuple(
        torch.cat(parts) for parts in zip(*(each[2:] for each in requests), strict=True)
    )
    counts = [request[1].shape[1] for request in requests]
    return (x, torch.cat(moved, dim=1), *features), _splitter(counts)


def join_events(requests: Sequence[Tensors]) -> tuple[Tensors, Split]:
    """Hits of many events behind each other, and how many each has: inputs of `Chain`.

    Raises
    ------
    ValueError
        An event's columns differ in length.
    """
    for request in requests:
        if len({len(column) for column in request}) > 1:
            lengths = dict(zip(COLUMNS, map(len, request), strict=True))
            raise ValueError(f"columns of hits differ in length: {lengths}")
    counts = [len(request[0]) for request in requests]
    columns = (torch.cat(parts) for parts in zip(*requests, strict=True))
    return (*columns, torch.tensor(counts)), _splitter(counts)


def _splitter(counts: list[int]) -> Split:
    def split(outputs: Tensors) -> list[Tensors]:
        return list(zip(*(output.split(counts) for output in outputs), strict=True))

    return split


def _check_graph(x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> None:
    outside = ((edge_index < 0) | (edge_index >= len(x))).any(dim=0).nonzero()
    if len(outside):
        edge = int(outside[0])
        raise ValueError(
            f"edge {edge} joins nodes {edge_index[:, edge].tolist()}, but the nodes are 0 to "
            f"{len(x) - 1}"
        )
    if edge_attr is not None and len(edge_attr) != edge_index.shape[1]:
        raise ValueError(f"{edge_index.shape[1]} edges, but features of {len(edge_attr)}")


def _event(columns: Sequence[np.ndarray]) -> Event:
    """An event of which nothing but its hits is known."""
    hits = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    hits["hit_id"] = np.arange(1, len(hits) + 1)
    for unknown in ("module_id", "particle_id", "weight"):
        hits[unknown] = 0
    return Event.of("request", hits, pd.DataFrame(columns=list(PARTICLE_COLUMNS)))


def _graph(fields: Sequence[tuple[str, str, tuple[int, ...]]]) -> tuple[np.ndarray, ...]:
    """A small graph with these fields: 24 nodes, 60 edges."""
    random = np.random.default_rng(0)
    found = [random.normal(size=(24, fields[0][2][1])), random.integers(0, 24, (2, 60))]
    found += [random.normal(size=(60, shape[1])) for _, _, shape in fields[2:]]
    pairs = zip(found, fields, strict=True)
    return tuple(np.ascontiguousarray(values, dtype) for values, (_, dtype, _) in pairs)


def _hits(cuts: Cuts) -> tuple[np.ndarray, ...]:
    """A few hits on layers that the cuts know, on lines from the beam line outwards."""
    random = np.random.default_rng(0)
    keys = np.unique(cuts.table[["inner", "outer"]].to_numpy())[:8]
    lines, steps = np.meshgrid(np.arange(4), np.arange(len(keys)), indexing="ij")
    phi = random.uniform(-np.pi, np.pi, 4)[lines.ravel()]
    r = 40.0 * (1 + steps.ravel())
    layer = keys[steps.ravel()]
    columns = (r * np.cos(phi), r * np.sin(phi), r * 0.1, layer >> 16, layer & 0xFFFF)
    return tuple(
        np.ascontiguousarray(values, HIT_COLUMNS[name])
        for name, values in zip(COLUMNS, columns, strict=True)
    )
