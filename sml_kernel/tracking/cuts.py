"""Which layers are neighbours and how a segment between two of them may lie, learnt from data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from sml_kernel.tracking.events import Event, InputError
from sml_kernel.tracking.hits import Hits, geometry
from sml_kernel.tracking.truth import true_segments

CUT_ON = ("dphi", "curvature", "z0", "deta")
_OF_VERTEX = ("z0", "deta")


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
        hits = Hits(event)
        source, target = true_segments(event)
        hard = hits.pt_gev[source] > min_pt_gev
        source, target = source[hard], target[hard]
        between = geometry(hits, source, target)
        found.append(
            pd.DataFrame(
                {"inner": hits.layer[source], "outer": hits.layer[target]}
                | {name: between[name] for name in CUT_ON}
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
    for name in CUT_ON:
        low, high = (
            groups[name].quantile((1 - quantile) / 2),
            groups[name].quantile((1 + quantile) / 2),
        )
        widen = vertex_margin if name in _OF_VERTEX else margin
        middle, half = (low + high) / 2, (high - low) / 2 * widen
        table[f"low_{name}"], table[f"high_{name}"] = middle - half, middle + half
    table = table[table.segments >= min_segments].reset_index()
    return Cuts(table, min_pt_gev)
