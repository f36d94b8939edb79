"""Tracks from scored segments: connected components, and a walk through those that branch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch_geometric.data import Data

from sml_kernel.tracking.scores import check_scores, score_segments

METHODS = ("walkthrough", "components")
_MIN_HITS = 3
Link = tuple[int, int, float]  # inner hit, outer hit, gain


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
    check_scores(scores, int(graph.num_edges))
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
    # a strict order, also of hits at one depth: a circle of segments would be walked for ever
    rank = np.argsort(np.argsort(depth, kind="stable"))
    chosen = np.flatnonzero(branching[source] & (source != target))
    turned = rank[source[chosen]] > rank[target[chosen]]
    inner = np.where(turned, target[chosen], source[chosen])
    outer = np.where(turned, source[chosen], target[chosen])
    order = np.argsort(rank[inner], kind="stable")
    links = list(
        zip(inner[order].tolist(), outer[order].tolist(), gain[chosen][order].tolist(), strict=True)
    )
    for path in _paths(links, layer):
        label[path] = free
        free += 1
    return label


def _paths(links: list[Link], layer: np.ndarray) -> Iterator[list[int]]:
    """Disjoint paths, the best of each component first; `links` come in order of depth."""
    pending = _components(links)
    while pending:
        links = pending.pop()
        joined = {(inner, outer) for inner, outer, _ in links}
        used: set[int] = set()
        for path in _best_paths(links):
            if used.intersection(path):
                break  # it lost hits to a better one: what is left of it must be found anew
            hits = set(path) | (_overlaps(path, links, joined, layer) - used)
            used |= hits
            yield sorted(hits)
        if used:
            left = [link for link in links if link[0] not in used and link[1] not in used]
            pending += _components(left)


def _best_paths(links: list[Link]) -> Iterator[list[int]]:
    """For each hit that does not lie on a better one, the best path that ends there.

    Best is the highest sum of gains; by dynamic programming over hits in order of depth.
    """
    best: dict[int, float] = defaultdict(float)
    before: dict[int, int] = {}
    for inner, outer, gain in links:
        if best[inner] + gain > best[outer]:
            best[outer], before[outer] = best[inner] + gain, inner
    passed: set[int] = set()
    for hit in sorted(best, key=best.__getitem__, reverse=True):
        if hit in passed:
            continue
        path = [hit]
        while path[-1] in before:
            path.append(before[path[-1]])
        passed.update(path)
        if len(path) >= _MIN_HITS:
            yield path[::-1]


def _overlaps(
    path: list[int], links: list[Link], joined: set[tuple[int, int]], layer: np.ndarray
) -> set[int]:
    """Hits beside the path: on a layer of it, and linked to its hits before and behind."""
    place = {hit: k for k, hit in enumerate(path)}
    around: set[tuple[int, int]] = set()  # (hit, the place on the path that it may share)
    for inner, outer, _ in links:
        if inner in place and outer not in place:
            around.add((outer, place[inner] + 1))
        elif outer in place and inner not in place:
            around.add((inner, place[outer] - 1))
    last = len(path) - 1
    return {
        hit
        for hit, k in around
        if 0 <= k <= last
        and layer[hit] == layer[path[k]]
        and (k == 0 or (path[k - 1], hit) in joined)
        and (k == last or (hit, path[k + 1]) in joined)
    }


def _components(links: list[Link]) -> list[list[Link]]:
    """Links of each connected component, in the order they came."""
    if not links:
        return []
    ends = np.array([link[:2] for link in links])
    hits, index = np.unique(ends, return_inverse=True)
    index = index.reshape(ends.shape)
    shape = (len(hits), len(hits))
    touching = coo_matrix((np.ones(len(links)), (index[:, 0], index[:, 1])), shape=shape)
    of_hit = connected_components(touching, directed=False)[1]
    found: dict[int, list[Link]] = defaultdict(list)
    for component, link in zip(of_hit[index[:, 0]].tolist(), links, strict=True):
        found[component].append(link)
    return list(found.values())


def _long_enough(component: np.ndarray) -> np.ndarray:
    """Number tracks of `_MIN_HITS` hits or more from 0, all other hits −1."""
    named = component >= 0
    _, index, counts = np.unique(component[named], return_inverse=True, return_counts=True)
    label = np.full(len(component), -1)
    number = np.where(counts >= _MIN_HITS, np.cumsum(counts >= _MIN_HITS) - 1, -1)
    label[named] = number[index]
    return label
