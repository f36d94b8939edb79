"""Graphs of an event: hits are nodes, candidate segments between neighbouring layers are edges.

Which layers are neighbours, and how a segment between two of them may lie, is learnt from the true
segments of training events (`learn_cuts`); the cuts then hold for any event of that detector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data
from tqdm.auto import tqdm

from sml_kernel.tracking.events import Event, InputError, transverse_momentum

NODE_FEATURES = ("r / m", "phi / pi", "z / m")
#: Differences are outer minus inner hit. ``curvature`` is that of the circle through the beam line
#: and both hits, 2 sin(Δφ) / d (d: transverse distance), per metre; ``z0`` is where the straight
#: line in the r–z plane meets the beam line.
EDGE_FEATURES = ("dr / dm", "dphi / 0.1", "dz / dm", "deta / 0.1", "curvature", "z0 / dm")
_LAYERS = 1 << 16  # a layer's key is volume · _LAYERS + layer


@dataclass(frozen=True)
class Cuts:
    """Layer pairs that segments cross, and the window of each.

    Attributes
    ----------
    table
        A row a pair of layers: ``inner, outer`` (keys volume · 65536 + layer), ``segments`` (true
        ones seen in training), and ``low_*, high_*`` for Δφ (rad), curvature (1/m), z0 (mm), Δη.
    min_pt_gev
        The windows hold segments of particles above this.
    """

    table: pd.DataFrame
    min_pt_gev: float

    def __repr__(self) -> str:
        return (
            f"Cuts({len(self.table)} layer pairs learnt from {self.table.segments.sum():,} "
            f"true segments of pT > {self.min_pt_gev} GeV)"
        )


_CUT_ON = ("dphi", "curvature", "z0", "deta")
_OF_VERTEX = ("z0", "deta")


def learn_cuts(
    events: Iterable[Event],
    *,
    min_pt_gev: float = 0.9,
    quantile: float = 0.9999,
    margin: float = 1.1,
    vertex_margin: float = 1.5,
    min_segments: int = 2,
) -> Cuts:
    """Learn layer pairs and windows from the true segments of training events.

    Parameters
    ----------
    events
        Training events, never those that figures are shown of.
    min_pt_gev
        Only particles above this are learnt from; lower ones bend out of any useful window.
    quantile
        Central part of the true segments of a pair that its windows hold.
    margin
        Windows of Δφ and curvature are widened by this factor about their middle, as rare pairs
        show too little of their width.
    vertex_margin
        The same of z0 and Δη, which lie where the collisions lie: all tracks of an event share
        its vertex, so that training events show fewer independent values than tracks.
    min_segments
        Pairs crossed by fewer true segments than this are left out.

    Raises
    ------
    InputError
        No true segment above `min_pt_gev` in the events.
    """
    found = []
    for event in events:
        hits = _Hits(event)
        source, target = true_segments(event)
        hard = hits.pt_gev[source] > min_pt_gev
        source, target = source[hard], target[hard]
        geometry = _geometry(hits, source, target)
        found.append(
            pd.DataFrame(
                {"inner": hits.layer[source], "outer": hits.layer[target]}
                | {name: geometry[name] for name in _CUT_ON}
            )
        )
    segments = pd.concat(found) if found else pd.DataFrame()
    if segments.empty:
        raise InputError(
            f"no true segment of pT > {min_pt_gev} GeV to learn from: "
            "give more training events, or lower min_pt_gev"
        )
    groups = segments.groupby(["inner", "outer"])
    table = groups.size().rename("segments").to_frame()
    for name in _CUT_ON:
        low, high = (
            groups[name].quantile((1 - quantile) / 2),
            groups[name].quantile((1 + quantile) / 2),
        )
        widen = vertex_margin if name in _OF_VERTEX else margin
        middle, half = (low + high) / 2, (high - low) / 2 * widen
        table[f"low_{name}"], table[f"high_{name}"] = middle - half, middle + half
    table = table[table.segments >= min_segments].reset_index()
    return Cuts(table, min_pt_gev)


def build_graphs(
    events: Iterable[Event], cuts: Cuts | None = None, *, progress: bool = False
) -> list[Data]:
    """Candidate segments of each event as a graph.

    Parameters
    ----------
    events
        From `simulate` or a reader.
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
    """
    events = list(events)
    if cuts is None:
        cuts = learn_cuts(events)
    bar = tqdm(events, desc="building graphs", unit="event", disable=not progress)
    return [_build(event, cuts) for event in bar]


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


def true_segments(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of hits (rows of ``event.hits``) that follow each other on a particle's way.

    A particle's hits are ordered by their distance from its production vertex. Hits that follow
    each other on the same layer, where modules overlap, form a group; every hit of a group is
    joined to every hit of the next.
    """
    hits = event.hits
    vertices = event.particles.set_index("particle_id")[["vx", "vy", "vz"]]
    rows = np.flatnonzero(hits.particle_id.to_numpy() != 0)
    particle = hits.particle_id.to_numpy()[rows]
    start = vertices.reindex(particle).fillna(0.0).to_numpy(float)
    distance = np.linalg.norm(hits[["x", "y", "z"]].to_numpy(float)[rows] - start, axis=1)
    order = np.lexsort((distance, particle))
    rows, particle = rows[order], particle[order]
    layer = _layer_key(hits)[rows]
    new_particle = np.diff(particle, prepend=particle[:1] - 1) != 0
    new_group = new_particle | (np.diff(layer, prepend=layer[:1] - 1) != 0)
    group = np.cumsum(new_group) - 1
    starts = np.flatnonzero(new_group)
    stops = np.append(starts[1:], len(rows))
    continues = np.append(~new_particle[starts[1:]], False) if len(starts) else np.zeros(0, bool)
    following = np.minimum(group + 1, len(starts) - 1)
    counts = np.where(continues[group], (stops - starts)[following], 0)
    source, offset = _expand(counts)
    return rows[source], rows[starts[following[source]] + offset]


class _Hits:
    """Columns of an event's hits as arrays, with cylinder coordinates and truth."""

    def __init__(self, event: Event) -> None:
        hits, particles = event.hits, event.particles
        x, y = hits.x.to_numpy(float), hits.y.to_numpy(float)
        self.x, self.y, self.z = x, y, hits.z.to_numpy(float)
        self.r, self.phi = np.hypot(x, y), np.arctan2(y, x)
        self.eta = np.arcsinh(self.z / np.maximum(self.r, 1e-9))
        self.layer = _layer_key(hits)
        pt = pd.Series(transverse_momentum(particles), particles.particle_id.to_numpy())
        self.pt_gev = pt.reindex(hits.particle_id).fillna(0.0).to_numpy(copy=True)


def _layer_key(hits: pd.DataFrame) -> np.ndarray:
    return hits.volume_id.to_numpy(np.int64) * _LAYERS + hits.layer_id.to_numpy(np.int64)


def _geometry(hits: _Hits, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """What cuts and features are made of; lengths in mm, curvature in 1/m."""
    dr, dz = hits.r[b] - hits.r[a], hits.z[b] - hits.z[a]
    dphi = _wrap(hits.phi[b] - hits.phi[a])
    chord = np.hypot(hits.x[b] - hits.x[a], hits.y[b] - hits.y[a])
    safe = np.where(np.abs(dr) < 1.0, np.where(dr < 0, -1.0, 1.0), dr)  # flat in r: z0 is bounded
    return {
        "dr": dr,
        "dphi": dphi,
        "dz": dz,
        "deta": hits.eta[b] - hits.eta[a],
        "curvature": 2000.0 * np.sin(dphi) / np.maximum(chord, 1e-3),
        "z0": hits.z[a] - hits.r[a] * dz / safe,
    }


def _build(event: Event, cuts: Cuts) -> Data:
    hits = _Hits(event)
    source, target = _candidates(hits, cuts)
    geometry = _geometry(hits, source, target)
    y, n_true, n_kept = _label(event, hits, source, target, cuts.min_pt_gev)
    features = (
        geometry["dr"] / 100,
        geometry["dphi"] / 0.1,
        geometry["dz"] / 100,
        geometry["deta"] / 0.1,
        geometry["curvature"],
        np.clip(geometry["z0"] / 100, -10, 10),
    )
    nodes = np.stack([hits.r / 1000, hits.phi / np.pi, hits.z / 1000], axis=1)
    return Data(
        x=torch.from_numpy(nodes).float(),
        edge_index=torch.from_numpy(np.stack([source, target])),
        edge_attr=torch.from_numpy(np.stack(features, axis=1)).float(),
        y=torch.from_numpy(y).float(),
        weight=torch.from_numpy(_loss_weight(y, hits.pt_gev[source], cuts)).float(),
        hit_id=torch.from_numpy(event.hits.hit_id.to_numpy(copy=True)),
        particle_id=torch.from_numpy(event.hits.particle_id.to_numpy(copy=True)),
        layer=torch.from_numpy(hits.layer),
        pt_gev=torch.from_numpy(hits.pt_gev).float(),
        importance=torch.from_numpy(event.hits.weight.to_numpy(copy=True)),
        true_segments=n_true,
        kept_segments=n_kept,
        name=event.name,
    )


def _candidates(hits: _Hits, cuts: Cuts) -> tuple[np.ndarray, np.ndarray]:
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
    hits: _Hits, inner: np.ndarray, outer: np.ndarray, pair: Any
) -> tuple[np.ndarray, np.ndarray]:
    turn = 2 * np.pi
    phi = hits.phi[outer]
    unrolled = np.concatenate([phi - turn, phi, phi + turn])  # windows reach across ±π
    from_, to = (
        np.searchsorted(unrolled, hits.phi[inner] + edge)
        for edge in (pair.low_dphi, pair.high_dphi)
    )
    source, offset = _expand(to - from_)
    target = outer[(from_[source] + offset) % len(outer)]
    source = inner[source]
    geometry = _geometry(hits, source, target)
    keep = np.ones(len(source), bool)
    for name in _CUT_ON:
        low, high = getattr(pair, f"low_{name}"), getattr(pair, f"high_{name}")
        keep &= (geometry[name] >= low) & (geometry[name] <= high)
    return source[keep], target[keep]


def _label(
    event: Event, hits: _Hits, source: np.ndarray, target: np.ndarray, min_pt_gev: float
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


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts [2, 0, 3]: rows [0, 0, 2, 2, 2] and offsets [0, 1, 0, 1, 2]."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


def _wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
