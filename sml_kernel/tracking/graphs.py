"""Graphs of an event: hits are nodes, candidate segments between neighbouring layers are edges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data
from tqdm.auto import tqdm

from sml_kernel.tracking.cuts import CUT_ON, Cuts, learn_cuts
from sml_kernel.tracking.events import Event
from sml_kernel.tracking.hits import Hits, expand, geometry
from sml_kernel.tracking.truth import true_segments

NODE_FEATURES = ("r / m", "phi / pi", "z / m")
#: Differences are outer minus inner hit. ``curvature`` is that of the circle through the beam line
#: and both hits, 2 sin(Δφ) / d (d: transverse distance), per metre; ``z0`` is where the straight
#: line in the r–z plane meets the beam line.
EDGE_FEATURES = ("dr / dm", "dphi / 0.1", "dz / dm", "deta / 0.1", "curvature", "z0 / dm")


def build_graphs(
    events: Event | Iterable[Event], cuts: Cuts | None = None, *, progress: bool = False
) -> list[Data]:
    """Candidate segments of each event as a graph.

    Parameters
    ----------
    events
        From `simulate` or a reader; one or many.
    cuts
        From `learn_cuts` on training events. None learns them from `events` themselves: right for
        training events, an unfair help for those that figures are shown of.
    progress
        Show a progress bar.

    Returns
    -------
    list of torch_geometric.data.Data
        One an event: ``x`` [N, 3] (`NODE_FEATURES`), ``edge_index`` [2, E] from inner to outer
        hit, ``edge_attr`` [E, 6] (`EDGE_FEATURES`), ``y`` [E] 1.0 for true segments, ``weight``
        [E] of the edge in the loss; a row a hit: ``hit_id``, ``particle_id``, ``layer``,
        ``pt_gev`` (0 for noise), ``importance`` (TrackML's weight);
        ``true_segments``/``kept_segments``: how many true segments above the cuts' pT the event
        has and how many are edges; ``name``.

    Raises
    ------
    InputError
        Hits without layers, or nothing to learn from (`learn_cuts`).
    """
    events = [events] if isinstance(events, Event) else list(events)
    if cuts is None:
        cuts = learn_cuts(events)
    bar = tqdm(events, desc="building graphs", unit="event", disable=not progress)
    return [_build(event, cuts) for event in bar]


def candidates(event: Event, cuts: Cuts) -> Data:
    """The graph of an event whose truth is not known or not wanted.

    Returns
    -------
    torch_geometric.data.Data
        `build_graphs` without ``y``, ``weight``, the counts of segments and ``name``.

    Raises
    ------
    InputError
        Hits without layers.
    """
    hits = Hits(event)
    return unlabelled(event, hits, np.stack(_candidates(hits, cuts)))


def summarise_graphs(graphs: Iterable[Data]) -> pd.DataFrame:
    """Per graph: hits, edges, the share of edges that are true, and of true segments kept."""
    return pd.DataFrame(
        {
            "event": graph.name,
            "hits": graph.num_nodes,
            "edges": graph.num_edges,
            "true_edges": float(graph.y.mean()) if graph.num_edges else float("nan"),
            "segments_kept": graph.kept_segments / graph.true_segments
            if graph.true_segments
            else float("nan"),
        }
        for graph in graphs
    )


def _build(event: Event, cuts: Cuts) -> Data:
    hits = Hits(event)
    source, target = _candidates(hits, cuts)
    y, n_true, n_kept = _label(event, hits, source, target, cuts.min_pt_gev)
    graph = unlabelled(event, hits, np.stack([source, target]))
    graph.y = torch.from_numpy(y).float()
    graph.weight = torch.from_numpy(_loss_weight(y, hits.pt_gev[source], cuts)).float()
    graph.true_segments, graph.kept_segments, graph.name = n_true, n_kept, event.name
    return graph


def unlabelled(event: Event, hits: Hits, edges: np.ndarray) -> Data:
    """The graph of some segments, without what is known of their truth.

    Parameters
    ----------
    event, hits
        An event, and the coordinates of its hits.
    edges
        [2, E] inner and outer hit of each segment.

    Returns
    -------
    torch_geometric.data.Data
        `build_graphs` without ``y``, ``weight``, the counts of segments and ``name``.
    """
    between = geometry(hits, *edges)
    features = (
        between["dr"] / 100,
        between["dphi"] / 0.1,
        between["dz"] / 100,
        between["deta"] / 0.1,
        between["curvature"],
        np.clip(between["z0"] / 100, -10, 10),
    )
    nodes = np.stack([hits.r / 1000, hits.phi / np.pi, hits.z / 1000], axis=1)
    return Data(
        x=torch.from_numpy(nodes).float(),
        edge_index=torch.from_numpy(np.ascontiguousarray(edges)),
        edge_attr=torch.from_numpy(np.stack(features, axis=1)).float(),
        hit_id=torch.from_numpy(event.hits.hit_id.to_numpy(copy=True)),
        particle_id=torch.from_numpy(event.hits.particle_id.to_numpy(copy=True)),
        layer=torch.from_numpy(hits.layer),
        pt_gev=torch.from_numpy(hits.pt_gev).float(),
        importance=torch.from_numpy(event.hits.weight.to_numpy(copy=True)),
    )


def _candidates(hits: Hits, cuts: Cuts) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of hits inside the windows, in order of layer pairs: shapes [E], [E]."""
    order = np.lexsort((hits.phi, hits.layer))
    layers, first = np.unique(hits.layer[order], return_index=True)
    on = dict(zip(layers, np.split(order, first[1:]), strict=False))
    sources, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for pair in cuts.table.itertuples(index=False):
        if pair.inner in on and pair.outer in on:
            source, target = _in_window(hits, on[pair.inner], on[pair.outer], pair)
            sources.append(source)
            targets.append(target)
    return np.concatenate(sources), np.concatenate(targets)


def _in_window(
    hits: Hits, inner: np.ndarray, outer: np.ndarray, pair: Any
) -> tuple[np.ndarray, np.ndarray]:
    turn = 2 * np.pi
    phi = hits.phi[outer]
    unrolled = np.concatenate([phi - turn, phi, phi + turn])  # windows reach across ±π
    from_, to = (
        np.searchsorted(unrolled, hits.phi[inner] + edge)
        for edge in (pair.low_dphi, pair.high_dphi)
    )
    source, offset = expand(to - from_)
    target = outer[(from_[source] + offset) % len(outer)]
    source = inner[source]
    between = geometry(hits, source, target)
    keep = np.ones(len(source), bool)
    for name in CUT_ON:
        low, high = getattr(pair, f"low_{name}"), getattr(pair, f"high_{name}")
        keep &= (between[name] >= low) & (between[name] <= high)
    return source[keep], target[keep]


def _label(
    event: Event, hits: Hits, source: np.ndarray, target: np.ndarray, min_pt_gev: float
) -> tuple[np.ndarray, int, int]:
    """Truth of each candidate, the number of true segments above the pT, and those kept."""
    a, b = true_segments(event)
    n = len(hits.r)
    candidates, true = source * n + target, a * n + b
    hard = hits.pt_gev[a] > min_pt_gev
    kept = int(np.isin(true[hard], candidates).sum())
    return np.isin(candidates, true), int(hard.sum()), kept


def _loss_weight(y: np.ndarray, pt_gev: np.ndarray, cuts: Cuts) -> np.ndarray:
    """1 for false edges and for true ones that the cuts are meant to keep, less for softer ones.

    Soft particles are seen in fragments only: their true edges are ambiguous, and nobody counts
    their tracks.
    """
    return np.where(y & (pt_gev < cuts.min_pt_gev), 0.2, 1.0)
