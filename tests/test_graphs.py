"""Graphs: truth and candidates against definitions written out, on random events."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_kernel.tracking import Event, InputError, build_graphs, learn_cuts, summarise_graphs
from sml_kernel.tracking.truth import true_segments

RADII = (30.0, 70.0, 120.0, 170.0, 260.0)


def make_event(seed: int, n_particles: int, overlap: float = 0.3, n_noise: int = 5) -> Event:
    """Straight tracks from the origin through five barrel layers, some hit twice on a layer."""
    random = np.random.default_rng(seed)
    rows = []
    for particle in range(1, n_particles + 1):
        phi, cot = random.uniform(-math.pi, math.pi), random.uniform(-2, 2)
        for layer, radius in enumerate(RADII):
            for twin in range(1 + (random.random() < overlap)):
                r = radius + 0.8 * twin
                rows.append((r * math.cos(phi), r * math.sin(phi), r * cot, layer, particle))
    for _ in range(n_noise):
        phi, layer = random.uniform(-math.pi, math.pi), random.integers(len(RADII))
        r = RADII[layer]
        z = random.uniform(-400, 400)
        rows.append((r * math.cos(phi), r * math.sin(phi), z, layer, 0))
    random.shuffle(rows)
    hits = pd.DataFrame(rows, columns=["x", "y", "z", "layer_id", "particle_id"]).assign(
        volume_id=8, module_id=1, weight=1.0
    )
    hits["hit_id"] = np.arange(1, len(hits) + 1)
    particles = pd.DataFrame(
        {
            "particle_id": np.arange(1, n_particles + 1),
            "particle_type": 211,
            **dict.fromkeys(("vx", "vy", "vz"), 0.0),
            "px": random.uniform(1, 5, n_particles),
            **dict.fromkeys(("py", "pz"), 0.0),
            "q": 1,
            "primary": True,
        }
    )
    return Event.of(f"made-{seed}", hits, particles)


def written_out_segments(event: Event) -> set[tuple[int, int]]:
    """The definition of a true segment, one particle and one group at a time."""
    found = set()
    for particle, hits in event.hits.groupby("particle_id"):
        if particle == 0:
            continue
        position = hits[["x", "y", "z"]].to_numpy(float)
        order = hits.index[np.argsort(np.linalg.norm(position, axis=1))]
        layer = hits.layer_id.to_dict()
        groups = [list(group) for _, group in itertools.groupby(order, layer.get)]
        for one, following in itertools.pairwise(groups):
            found |= set(itertools.product(one, following))
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n_particles=st.integers(0, 12), overlap=st.floats(0, 1))
def test_truth_joins_every_hit_of_a_layer_group_to_the_next(seed, n_particles, overlap) -> None:
    event = make_event(seed, n_particles, overlap)
    assert set(zip(*true_segments(event), strict=True)) == written_out_segments(event)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n_particles=st.integers(1, 12))
def test_candidates_are_all_pairs_inside_the_windows(seed, n_particles) -> None:
    event = make_event(seed, n_particles)
    cuts = learn_cuts([make_event(seed + 1, 20)], min_segments=1)
    graph = build_graphs([event], cuts)[0]
    x, y, z = (event.hits[name].to_numpy(float) for name in "xyz")
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    key = event.hits.volume_id.to_numpy() * 65536 + event.hits.layer_id.to_numpy()
    expected = set()
    for pair in cuts.table.itertuples():
        for a in np.flatnonzero(key == pair.inner):
            for b in np.flatnonzero(key == pair.outer):
                dphi = math.remainder(phi[b] - phi[a], math.tau)
                dr, chord = r[b] - r[a], math.hypot(x[b] - x[a], y[b] - y[a])
                values = {
                    "dphi": dphi,
                    "curvature": 2000 * math.sin(dphi) / chord,
                    "z0": z[a] - r[a] * (z[b] - z[a]) / dr,
                    "deta": math.asinh(z[b] / r[b]) - math.asinh(z[a] / r[a]),
                }
                inside = [
                    getattr(pair, f"low_{k}") <= v <= getattr(pair, f"high_{k}")
                    for k, v in values.items()
                ]
                if all(inside):
                    expected.add((a, b))
    found = list(zip(*graph.edge_index.numpy(), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_own_cuts_keep_own_segments_and_labels_are_the_truth() -> None:
    events = [make_event(seed, 15) for seed in range(4)]
    graphs = build_graphs(events, learn_cuts(events, quantile=1.0, margin=1.2))
    for event, graph in zip(events, graphs, strict=True):
        segments = written_out_segments(event)
        assert graph.kept_segments == graph.true_segments == len(segments)
        labelled = set(zip(*graph.edge_index[:, graph.y > 0].numpy(), strict=True))
        assert labelled == segments
        assert graph.particle_id.tolist() == event.hits.particle_id.tolist()
    table = summarise_graphs(graphs)
    assert (table.segments_kept == 1).all()
    assert table.hits.tolist() == [len(event.hits) for event in events]


def test_events_without_hits_give_graphs_without_edges() -> None:
    cuts = learn_cuts([make_event(0, 10)])
    full = make_event(1, 3)
    for n_hits in (0, 1):
        graph = build_graphs([full.with_hits(full.hits.iloc[:n_hits])], cuts)[0]
        assert (graph.num_nodes, graph.num_edges) == (n_hits, 0)
        assert graph.edge_attr.shape == (0, 6)


def test_nothing_to_learn_from_is_said() -> None:
    for events in ([], [make_event(0, 0)]):
        with pytest.raises(InputError, match="no true segment"):
            learn_cuts(events)


def test_events_without_layers_are_refused() -> None:
    event = make_event(1, 3)
    flat = event.with_hits(event.hits.assign(layer_id=0))
    with pytest.raises(InputError, match="layer_id is 0"):
        learn_cuts([flat])
    with pytest.raises(InputError, match="layer_id is 0"):
        build_graphs(flat, learn_cuts([event]))
