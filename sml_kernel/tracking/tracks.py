"""Tracks from scored segments: connected components, and a walk through those that branch."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch_geometric.data import Data

METHODS = ("walkthrough", "components")
_MIN_HITS = 3


def find_tracks(
    model: nn.Module, graph: Data, *, cut: float = 0.5, method: str = "walkthrough"
) -> np.ndarray:
    """Score the segments of a graph with a network and join them to tracks.

    Parameters
    ----------
    model
        Takes ``x, edge_index, edge_attr`` and gives a logit an edge, as `InteractionGNN` does.
    graph
        From `build_graphs`.
    cut, method
        See `join_segments`.

    Returns
    -------
    ndarray
        [N] the track of each hit, counted from 0, −1 where it has none.
    """
    return join_segments(graph, score_segments(model, graph), cut=cut, method=method)


def score_segments(model: nn.Module, graph: Data) -> np.ndarray:
    """The model's score of each edge, shape [E], between 0 and 1, on the model's own device."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(*(graph[name].to(device) for name in ("x", "edge_index", "edge_attr")))
    model.train(training)
    return torch.sigmoid(logits).cpu().numpy()


def join_segments(
    graph: Data, scores: np.ndarray, *, cut: float = 0.5, method: str = "walkthrough"
) -> np.ndarray:
    """Join segments of a score above `cut` to tracks.

    Parameters
    ----------
    graph
        From `build_graphs`.
    scores
        [E] between 0 and 1. ``graph.y`` gives the ceiling: what this builder makes of the truth.
    cut
        Segments of a higher score are joined.
    method
        ``"components"``: each connected component is a track. ``"walkthrough"``: a component that
        does not branch is one; in any other the path of the highest summed score above the cut is
        taken, with the hits of overlapping modules beside it, then the next among the hits that
        are left.

    Returns
    -------
    ndarray
        [N] the track of each hit, counted from 0, −1 where it has none. Tracks have 3 hits or
        more.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    taken = np.flatnonzero(scores > cut)
    source, target = graph.edge_index.numpy()[:, taken]
    n = int(graph.num_nodes)
    links = coo_matrix((np.ones(len(taken)), (source, target)), shape=(n, n))
    component = connected_components(links, directed=False)[1]
    if method == "walkthrough":
        component = _split_branching(graph, source, target, scores[taken] - cut, component)
    return _long_enough(component)


def _split_branching(
    graph: Data, source: np.ndarray, target: np.ndarray, gain: np.ndarray, component: np.ndarray
) -> np.ndarray:
    n = len(component)
    forks = (np.bincount(source, minlength=n) > 1) | (np.bincount(target, minlength=n) > 1)
    branching = np.isin(component, component[forks])
    label = np.where(branching, -1, component)
    free = component.max(initial=-1) + 1
    layer = graph.layer.numpy()
    depth = np.hypot(graph.x[:, 0].numpy(), graph.x[:, 2].numpy())  # r and z: paths lead outwards
    edges = defaultdict(list)
    for k in np.flatnonzero(branching[source]):
        inner, outer = int(source[k]), int(target[k])
        if depth[inner] > depth[outer]:
            inner, outer = outer, inner
        edges[int(component[inner])].append((inner, outer, float(gain[k])))
    for links in edges.values():
        for path in _paths(sorted(links, key=lambda link: depth[link[0]]), layer):
            label[path] = free
            free += 1
    return label


def _paths(links: list[tuple[int, int, float]], layer: np.ndarray) -> list[list[int]]:
    """Disjoint paths through one component, the best first; `links` come in order of depth."""
    paths = []
    while links:
        path = _best_path(links)
        if len(path) < _MIN_HITS:
            break
        used = set(path) | _overlaps(path, links, layer)
        paths.append(sorted(used))
        links = [link for link in links if link[0] not in used and link[1] not in used]
    return paths


def _best_path(links: list[tuple[int, int, float]]) -> list[int]:
    """The path of the highest sum of gains, by dynamic programming over hits in order of depth."""
    best: dict[int, float] = defaultdict(float)
    before: dict[int, int] = {}
    for inner, outer, gain in links:
        if best[inner] + gain > best[outer]:
            best[outer], before[outer] = best[inner] + gain, inner
    hit = max(best, key=best.__getitem__)
    path = [hit]
    while hit in before:
        hit = before[hit]
        path.append(hit)
    return path[::-1]


def _overlaps(path: list[int], links: list[tuple[int, int, float]], layer: np.ndarray) -> set[int]:
    """Hits beside the path: on a layer of it, and linked to its hits before and behind."""
    place = {hit: k for k, hit in enumerate(path)}
    around: dict[int, set[int]] = defaultdict(set)
    for inner, outer, _ in links:
        if inner in place and outer not in place:
            around[outer].add(place[inner] + 1)
        if outer in place and inner not in place:
            around[inner].add(place[outer] - 1)
    beside = set()
    for hit, sides in around.items():
        for k in sides:
            if 0 <= k < len(path) and layer[hit] == layer[path[k]] and _both(hit, k, path, links):
                beside.add(hit)
    return beside


def _both(hit: int, k: int, path: list[int], links: list[tuple[int, int, float]]) -> bool:
    joined = {(inner, outer) for inner, outer, _ in links}
    before = k == 0 or (path[k - 1], hit) in joined
    behind = k == len(path) - 1 or (hit, path[k + 1]) in joined
    return before and behind


def _long_enough(component: np.ndarray) -> np.ndarray:
    """Number tracks of `_MIN_HITS` hits or more from 0, all other hits −1."""
    named = component >= 0
    _, index, counts = np.unique(component[named], return_inverse=True, return_counts=True)
    label = np.full(len(component), -1)
    number = np.where(counts >= _MIN_HITS, np.cumsum(counts >= _MIN_HITS) - 1, -1)
    label[named] = number[index]
    return label
