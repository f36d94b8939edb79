"""Where particles are lost: efficiency after each stage, up to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch_geometric.data import Data

from sml_kernel import records
from sml_kernel.tracking.events import Event
from sml_kernel.tracking.fiducial import Fiducial
from sml_kernel.tracking.metrics import TrackScores, score_tracks
from sml_kernel.tracking.tracks import join_segments

_SHOWN = [
    "stage",
    "efficiency",
    "efficiency_error",
    "fake_rate",
    "fake_rate_error",
    "duplicate_rate",
    "lost",
    "particles",
    "tracks",
]


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
        """A row a stage, with its efficiency, fake and duplicate rate, and particles lost.

        The stages are ``graph`` (all true candidates joined), ``ceiling`` (the track builder on
        true scores) and ``network``.

        ``lost`` counts the particles that this stage lost or, below zero, won back.
        """
        rows = [{"stage": stage, **scores.row(rule)} for stage, scores in self._named().items()]
        table = pd.DataFrame(rows)
        found = np.array([table.particles.iloc[0], *table.reconstructed], int)
        table["lost"] = found[:-1] - found[1:]
        return table[_SHOWN].astype({"particles": int, "tracks": int})

    def headline(self, rule: str | None = None) -> str:
        """The network's figures with the ceiling's, in a line with the cuts."""
        ceiling = self.ceiling.row(rule)
        beside = (
            f"; ceiling {ceiling['efficiency']:.4f} ± {ceiling['efficiency_error']:.4f}, "
            f"{ceiling['fake_rate']:.4f} ± {ceiling['fake_rate_error']:.4f}, "
            f"{ceiling['duplicate_rate']:.4f} ["
        )
        return self.network.headline(rule).replace(" [", beside, 1)

    def append(self, writer: records.Writer) -> None:
        """Record all that the figures are drawn from.

        A row of kind ``headline``; a row of kind ``stage`` a stage (`table`); a row of kind
        ``efficiency`` a bin of pT and η (`TrackScores.binned`) for the ceiling and the network.
        """
        network, ceiling = self.network.record(), self.ceiling.row()
        writer.append("headline", text=self.headline(), **network, ceiling=ceiling["efficiency"])
        cuts = self.network.fiducial.short()
        for row in self.table().to_dict("records"):
            writer.append("stage", cuts=cuts, **row)
        for stage in ("ceiling", "network"):
            for against in ("pt_gev", "eta"):
                for row in self._named()[stage].binned(against).to_dict("records"):
                    writer.append("efficiency", stage=stage, against=against, cuts=cuts, **row)

    def _named(self) -> dict[str, TrackScores]:
        return {"graph": self.segments, "ceiling": self.ceiling, "network": self.network}


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
