"""Where particles are lost: efficiency after each stage, up to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch_geometric.data import Data

from sml_kernel.tracking.events import Event
from sml_kernel.tracking.fiducial import Fiducial
from sml_kernel.tracking.metrics import TrackScores, score_tracks
from sml_kernel.tracking.tracks import join_segments


@dataclass(frozen=True)
class StageScores:
    """What `score_stages` found.

    Attributes
    ----------
    segments
        All true segments among the candidates joined: what graph construction left.
    ceiling
        The same scores, 1 for true and 0 for false, through the track builder: no network does
        better with these graphs and this builder.
    network
        The network's scores through the same builder.
    """

    segments: TrackScores
    ceiling: TrackScores
    network: TrackScores

    def table(self, rule: str | None = None) -> pd.DataFrame:
        """A row a stage: ``stage``, ``efficiency``, ``efficiency_error``, ``fake_rate``, ``lost``.

        The stages are ``graph`` (all true candidates joined), ``ceiling`` (the track builder on
        true scores) and ``network``.

        ``lost`` counts the particles that this stage lost or, below zero, won back.
        """
        named = {
            "graph": self.segments,
            "ceiling": self.ceiling,
            "network": self.network,
        }
        rows = [{"stage": stage, **scores.row(rule)} for stage, scores in named.items()]
        table = pd.DataFrame(rows)
        table["lost"] = (
            -table.reconstructed.diff()
            .fillna(table.reconstructed.iloc[0] - table.particles.iloc[0])
            .astype(int)
        )
        return table[["stage", "efficiency", "efficiency_error", "fake_rate", "lost"]]

    def headline(self, rule: str | None = None) -> str:
        """The network's efficiency and fake rate with the ceiling's, in a line with the cuts."""
        ceiling = self.ceiling.row(rule)
        beside = f"; ceiling {ceiling['efficiency']:.4f} / {ceiling['fake_rate']:.4f} ["
        return self.network.headline(rule).replace(" [", beside, 1)


def score_stages(
    events: Sequence[Event],
    graphs: Sequence[Data],
    scores: Sequence[np.ndarray],
    fiducial: Fiducial | str = "acorn-ctd2023",
    *,
    cut: float = 0.5,
    method: str = "walkthrough",
) -> StageScores:
    """Score tracks after each stage.

    Parameters
    ----------
    events, graphs
        The same events, and the graphs built of them.
    scores
        For each graph [E], from `sml_kernel.tracking.score_segments`.
    fiducial
        See `sml_kernel.tracking.score_tracks`.
    cut, method
        See `sml_kernel.tracking.join_segments`.
    """
    truth = [graph.y.numpy() for graph in graphs]

    def scored(edge_scores: Sequence[np.ndarray], method: str) -> TrackScores:
        pairs = zip(graphs, edge_scores, strict=True)
        tracks = [join_segments(graph, each, cut=cut, method=method) for graph, each in pairs]
        return score_tracks(events, tracks, fiducial)

    return StageScores(scored(truth, "components"), scored(truth, method), scored(scores, method))
