"""Track building and its metrics, on events small enough to know the answer."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

from sml_kernel.tracking import Event, Fiducial, join_segments, score_edges, score_tracks
from sml_kernel.tracking.kinematics import track_parameters
from sml_kernel.tracking.metrics import binomial

ALL = Fiducial(min_pt_gev=0.0, max_abs_eta=10.0, min_hits=1, min_track_hits=3)


def graph_of(layers: list[int], edges: list[tuple[int, int]]) -> Data:
    """Hits on layers 10 cm apart."""
    x = torch.zeros(len(layers), 3)
    x[:, 0] = torch.tensor(layers) / 10
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    return Data(x=x, edge_index=index, layer=torch.tensor(layers), num_nodes=len(layers))


def tracks_of(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == k)) for k in range(labels.max(initial=-1) + 1)}


def test_chains_become_tracks_and_short_ones_do_not() -> None:
    graph = graph_of([0, 1, 2, 0, 1, 0], [(0, 1), (1, 2), (3, 4)])
    for method in ("components", "walkthrough"):
        labels = join_segments(graph, np.ones(3), method=method)
        assert tracks_of(labels) == {frozenset({0, 1, 2})}
        assert labels.tolist() == [0, 0, 0, -1, -1, -1]


def test_walk_parts_two_tracks_that_one_false_segment_joins() -> None:
    layers = [0, 1, 2, 3] * 2
    chains = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]
    graph = graph_of(layers, [*chains, (1, 6)])
    scores = np.array([0.9] * 6 + [0.6])
    assert len(tracks_of(join_segments(graph, scores, method="components"))) == 1
    walked = tracks_of(join_segments(graph, scores))
    assert walked == {frozenset({0, 1, 2, 3}), frozenset({4, 5, 6, 7})}


def test_walk_takes_the_twins_of_overlapping_modules_along() -> None:
    graph = graph_of(
        [0, 1, 1, 2, 2, 3], [(0, 1), (0, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 5), (4, 5)]
    )
    assert tracks_of(join_segments(graph, np.full(8, 0.9))) == {frozenset(range(6))}


@pytest.mark.parametrize("n_hits", [0, 1, 4])
def test_no_segments_no_tracks(n_hits: int) -> None:
    graph = graph_of(list(range(n_hits)), [])
    assert join_segments(graph, np.zeros(0)).tolist() == [-1] * n_hits


@pytest.mark.parametrize("circle", [[(1, 1)], [(1, 2), (2, 1)], [(1, 2), (2, 3), (3, 1)]])
def test_a_circle_of_segments_is_walked_once(circle: list[tuple[int, int]]) -> None:
    edges = [(0, 1), (0, 2), *circle, (3, 4)]
    labels = join_segments(graph_of([0, 1, 1, 1, 2], edges), np.full(len(edges), 0.9))
    assert set(labels) <= {-1, 0}


def test_scores_that_are_none_become_no_figures() -> None:
    graph = graph_of([0, 1, 2], [(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        join_segments(graph, np.array([0.9, math.nan]))
    with pytest.raises(ValueError, match="2 edges, but scores of shape"):
        join_segments(graph, np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        score_edges(np.ones(1), np.array([math.nan]), np.ones(1), cut=0.5)
    with pytest.raises(ValueError, match="no events"):
        score_tracks([], [], ALL)


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(ValueError, match="known: walkthrough, components"):
        join_segments(graph_of([0], []), np.zeros(0), method="magic")


def event_of(hits_of: dict[int, int], **columns) -> Event:
    """So many hits of each particle, one a layer; particle 0 is noise."""
    owner = np.repeat(list(hits_of), list(hits_of.values()))
    layer = np.concatenate([np.arange(n) for n in hits_of.values()])
    hits = pd.DataFrame(
        {
            "hit_id": np.arange(1, len(owner) + 1),
            "x": 30.0 + 30.0 * layer,
            "y": 0.1 * owner,
            "z": 0.0,
            "volume_id": 8,
            "layer_id": layer,
            "module_id": 1,
            "particle_id": owner,
            "weight": np.where(owner == 0, 0.0, 1.0),
        }
    )
    ids = [particle for particle in hits_of if particle]
    table = {
        "particle_id": ids,
        "particle_type": 211,
        **dict.fromkeys(("vx", "vy", "vz", "py", "pz"), 0.0),
        "px": 2.0,
        "q": 1,
        "primary": True,
    }
    return Event.of("made", hits, pd.DataFrame({**table, **columns}))


def test_the_three_rules_by_hand() -> None:
    # particle 1: whole track; 2: two halves of 3 (pure, half complete); 3: 3 of 9 hits on a track
    # of its own (pure, not complete); 4: 3 hits swamped in a track with 4 noise hits (complete,
    # not pure); noise: a track of 3
    event = event_of({1: 5, 2: 6, 3: 9, 4: 3, 0: 7})
    labels = np.array(
        [0] * 5 + [1] * 3 + [2] * 3 + [3] * 3 + [-1] * 6 + [4] * 3 + [4] * 4 + [5] * 3
    )
    scores = score_tracks(event, labels, ALL)
    atlas, one_way, two_way = (scores.row(rule) for rule in ("atlas", "one-way", "two-way"))
    assert [row["particles"] for row in (atlas, one_way, two_way)] == [4, 4, 4]
    assert [row["tracks"] for row in (atlas, one_way, two_way)] == [6, 6, 6]
    assert atlas["reconstructed"] == 3  # 1, 2, 3
    assert one_way["reconstructed"] == 3  # 1, 2, 4
    assert two_way["reconstructed"] == 2  # 1, 2
    assert [row["fakes"] for row in (atlas, one_way, two_way)] == [2, 2, 3]
    assert [row["duplicates"] for row in (atlas, one_way, two_way)] == [1, 1, 1]
    assert two_way["efficiency"] == 0.5
    # TrackML: more than half of both; only particle 1's track
    assert scores.trackml == pytest.approx(5 / 23)


def test_tracks_of_other_particles_are_no_fakes_and_lost_particles_count() -> None:
    event = event_of({1: 4, 2: 4, 3: 4}, px=[2.0, 0.5, 2.0])
    labels = np.array([0] * 4 + [1] * 4 + [-1] * 4)
    row = score_tracks(event, labels, Fiducial(min_pt_gev=1.0)).row("two-way")
    assert (row["particles"], row["reconstructed"], row["fakes"], row["tracks"]) == (2, 1, 0, 2)


def test_fiducial_cuts_each_cut() -> None:
    event = event_of(
        {1: 5, 2: 5, 3: 5, 4: 5, 5: 2, 6: 5},
        px=[2.0, 0.5, 2.0, 2.0, 2.0, 2.0],
        pz=[0.0, 0.0, 100.0, 0.0, 0.0, 0.0],
        primary=[True, True, True, False, True, True],
        particle_type=[211, 211, 211, 211, 211, -11],
    )
    cut = Fiducial.preset("acorn-ctd2023")
    assert event.particles.particle_id[cut.select(event)].tolist() == [1]
    assert "electrons out" in str(cut)
    with pytest.raises(ValueError, match="known: acorn-ctd2023, central"):
        Fiducial.preset("acorn")


def test_labels_of_another_event_are_refused() -> None:
    event = event_of({1: 4})
    with pytest.raises(ValueError, match="4 hits, but tracks of shape"):
        score_tracks(event, np.zeros(3, int), ALL)
    with pytest.raises(ValueError, match="1 events, but tracks of 2"):
        score_tracks([event], [np.zeros(4, int)] * 2, ALL)


def test_binomial_error_is_never_zero() -> None:
    p, error = binomial(900, 1000)
    assert (p, error) == (0.9, pytest.approx(math.sqrt(0.09 / 1000), rel=1e-2))
    assert binomial(10, 10)[1] > 0.01
    assert math.isnan(binomial(0, 0)[0])


def test_edge_figures_by_hand() -> None:
    y = np.array([1, 1, 1, 0, 0])
    target = np.array([1, 1, 0, 0, 0])
    scores = np.array([0.9, 0.4, 0.8, 0.7, 0.1])
    found = score_edges(y, scores, target, cut=0.5)
    assert found["eff"] == 1 / 2
    assert found["target_pur"] == 1 / 3
    assert found["total_pur"] == 2 / 3
    assert found["pur"] == 1 / 2
    assert found["auc"] == pytest.approx(4 / 6)  # of 2 × 3 pairs 4 are in order


@pytest.mark.parametrize("pt_gev", [0.5, 1.0, 5.0])
def test_momentum_of_a_helix(pt_gev: float) -> None:
    event = event_of({1: 8, 2: 8})
    radius = pt_gev / (0.3 * 2.0) * 1000
    r = np.linspace(30, 600, 8)
    phi = 0.3 - np.arcsin(r / (2 * radius))
    z = 12.0 + 1.5 * 2 * radius * np.arcsin(r / (2 * radius))
    circle = event.hits.assign(
        x=np.tile(r * np.cos(phi), 2), y=np.tile(r * np.sin(phi), 2), z=np.tile(z, 2)
    )
    found = track_parameters(event.with_hits(circle), np.repeat([0, 3], 8))
    assert found.pt_gev.to_numpy() == pytest.approx(pt_gev, rel=1e-3)
    assert found.eta.to_numpy() == pytest.approx(math.asinh(1.5), rel=0.03)
    assert found.hits.tolist() == [8, 8]
    assert found.index.tolist() == [0, 3]


def test_bins_hold_every_particle_of_the_fiducial() -> None:
    event = event_of({1: 4, 2: 4, 3: 4, 4: 4}, px=[1.0, 2.0, 500.0, 1.1], pz=[0, 99.9, -60.0, 0])
    labels = np.array([0] * 4 + [1] * 4 + [2] * 4 + [-1] * 4)
    scores = score_tracks(event, labels, Fiducial(min_pt_gev=1.0))
    assert len(scores.particles) == 3  # one is beyond |η| = 4
    for against in ("pt_gev", "eta"):
        table = scores.binned(against)
        assert table.particles.sum() == 3
        assert (table.efficiency * table.particles).sum() == pytest.approx(2)
    with pytest.raises(ValueError, match="known: pt_gev, eta"):
        scores.binned("phi")


def test_an_untrained_network_costs_no_minutes() -> None:
    """Every edge scores: one component of all hits. Quadratic walks took 23 s here."""
    random = np.random.default_rng(0)
    layers = np.repeat(np.arange(10), 300).tolist()
    edges = [
        (300 * k + int(a), 300 * (k + 1) + int(b))
        for k in range(9)
        for a, b in random.integers(300, size=(2000, 2))
    ]
    begin = time.process_time()
    labels = join_segments(graph_of(layers, edges), random.uniform(0.5, 1, len(edges)), cut=0.4)
    assert time.process_time() - begin < 15
    assert labels.max() > 100
