"""How good tracks and edge scores are, by the definitions of the field, with their errors.

A track and a particle share hits. With ``purity`` the shared part of the track and ``efficiency``
the shared part of the particle, a track is *matched* and a particle *reconstructed*:

=========  =============================  =============================
rule       track matched                  particle reconstructed
=========  =============================  =============================
atlas      purity ≥ 0.5                   purity ≥ 0.5
one-way    purity ≥ 0.5                   efficiency ≥ 0.5
two-way    purity and efficiency ≥ 0.5    purity and efficiency ≥ 0.5
=========  =============================  =============================

These are acorn's definitions, but that a track made of noise alone is a fake. Efficiency is over
generated particles of the `Fiducial`, whether or not the graph held them; a track matched to any
other particle is no fake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from sml_kernel.tracking.events import Event, pseudorapidity, transverse_momentum
from sml_kernel.tracking.fiducial import Fiducial
from sml_kernel.tracking.kinematics import track_parameters

RULES = ("atlas", "one-way", "two-way")


@dataclass(frozen=True)
class TrackScores:
    """What `score_tracks` found.

    Attributes
    ----------
    fiducial
        Which particles and tracks counted.
    table
        A row a rule: ``efficiency``, ``fake_rate`` and ``duplicate_rate``, each with ``_error``;
        ``particles``, ``reconstructed``, ``tracks``, ``fakes``, ``duplicates`` counted;
        ``fake_rate_all``: over all tracks long enough, whatever their momentum.
    particles
        A row a fiducial particle: ``event``, ``particle_id``, ``pt_gev``, ``eta``, and a column a
        rule: reconstructed or not.
    trackml
        TrackML score: the weight of majority hits of tracks of purity and efficiency > 0.5.
    """

    fiducial: Fiducial
    table: pd.DataFrame
    particles: pd.DataFrame
    trackml: float

    def row(self, rule: str | None = None) -> dict[str, float]:
        """The figures of one rule, by default the fiducial's; an unknown one raises."""
        rule = rule or self.fiducial.rule
        if rule not in RULES:
            raise ValueError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
        return self.table.set_index("rule").loc[rule].to_dict()

    def binned(self, against: str, rule: str | None = None) -> pd.DataFrame:
        """Efficiency in bins that hold every particle of the fiducial.

        Parameters
        ----------
        against
            ``"pt_gev"`` or ``"eta"``.
        rule
            A matching rule; None: the fiducial's.

        Returns
        -------
        DataFrame
            A row a bin with particles: ``low, high``, ``mean`` of the variable in it,
            ``efficiency, error``, ``particles``.
        """
        edges = _bin_edges(against, self.fiducial)
        groups = self.particles.groupby(
            pd.cut(self.particles[against], edges, include_lowest=True), observed=True
        )
        rows = []
        for interval, group in groups:
            p, error = binomial(int(group[rule or self.fiducial.rule].sum()), len(group))
            mean, n = float(group[against].mean()), len(group)
            rows.append((interval.left, interval.right, mean, p, error, n))
        columns = ["low", "high", "mean", "efficiency", "error", "particles"]
        return pd.DataFrame(rows, columns=columns)

    def record(self, rule: str | None = None) -> dict[str, object]:
        """The figures of one rule with the cuts, as a record holds them."""
        fiducial = {  # JSON has no infinity: null is no limit
            name: None if value == float("inf") else value
            for name, value in asdict(self.fiducial).items()
        }
        return {
            "rule": rule or self.fiducial.rule,
            **self.row(rule),
            "trackml": self.trackml,
            "fiducial": fiducial,
        }

    def headline(self, rule: str | None = None) -> str:
        """Efficiency, fake rate and duplicates of one rule in a line, with the cuts."""
        row, rule = self.row(rule), rule or self.fiducial.rule
        return (
            f"{rule} efficiency {row['efficiency']:.4f} ± {row['efficiency_error']:.4f}, "
            f"fake rate {row['fake_rate']:.4f} ± {row['fake_rate_error']:.4f}, "
            f"duplicate rate {row['duplicate_rate']:.4f} [{self.fiducial}]"
        )

    def __str__(self) -> str:
        lines = [
            f"{row.rule:8} efficiency {row.efficiency:.4f} ± {row.efficiency_error:.4f} "
            f"({row.reconstructed} of {row.particles}), fake rate {row.fake_rate:.4f} ± "
            f"{row.fake_rate_error:.4f} ({row.fakes} of {row.tracks}), duplicate rate "
            f"{row.duplicate_rate:.4f} ({row.duplicates})"
            for row in self.table.itertuples()
        ]
        return "\n".join([*lines, f"TrackML score {self.trackml:.4f}", f"[{self.fiducial}]"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shown = self.table.drop(columns=["reconstructed", "fakes", "duplicates", "tracks_all"])
        return (
            shown.to_html(index=False, float_format="{:.4f}".format)
            + f"<p>TrackML score {self.trackml:.4f}<br><small>{self.fiducial}</small></p>"
        )


def score_tracks(
    events: Event | Sequence[Event],
    tracks: np.ndarray | Sequence[np.ndarray],
    fiducial: Fiducial | str = "acorn-ctd2023",
) -> TrackScores:
    """Compare tracks with truth.

    Parameters
    ----------
    events
        One event or several.
    tracks
        From `find_tracks`, for each event: [N] the track of each hit, −1 where it has none.
    fiducial
        A `Fiducial`, or the name of one in `PRESETS`.

    Raises
    ------
    ValueError
        No events; events and tracks differ in number, or a track array from its event in length.
    """
    if isinstance(events, Event):
        events, tracks = [events], [np.asarray(tracks)]
    if isinstance(fiducial, str):
        fiducial = Fiducial.preset(fiducial)
    if not len(events):
        raise ValueError("no events to score")
    if len(events) != len(tracks):
        raise ValueError(f"{len(events)} events, but tracks of {len(tracks)}")
    found = [
        _compare(event, labels, fiducial) for event, labels in zip(events, tracks, strict=True)
    ]
    pairs = pd.concat([part[0] for part in found], keys=range(len(found)), names=["number", None])
    matched = pd.concat([part[1] for part in found], ignore_index=True)
    particles = pd.concat([part[2] for part in found], ignore_index=True)
    table = pd.DataFrame([_row(rule, pairs, matched, particles) for rule in RULES])
    weights = [event.hits.weight.to_numpy(float).sum() for event in events]
    return TrackScores(fiducial, table, particles, sum(part[3] for part in found) / sum(weights))


def binomial(successes: int, trials: int) -> tuple[float, float]:
    """Proportion and its standard error, nan without trials.

    The error is the half width of Wilson's interval at one standard deviation: √(p(1−p)/n) for
    many trials, and not zero at p = 0 or 1.
    """
    if not trials:
        return float("nan"), float("nan")
    p = successes / trials
    return p, float(np.sqrt(p * (1 - p) / trials + 0.25 / trials**2) / (1 + 1 / trials))


def _bin_edges(against: str, fiducial: Fiducial) -> np.ndarray:
    known = {
        "pt_gev": (fiducial.min_pt_gev or 0.1) * np.array([1, 1.2, 1.5, 2, 3, 5, 10, np.inf]),
        "eta": np.linspace(-1, 1, 11) * min(fiducial.max_abs_eta, 5.0),
    }
    if against not in known:
        raise ValueError(f"unknown variable {against!r}; known: {', '.join(known)}")
    edges = known[against]
    edges[[0, -1]] = (0, np.inf) if against == "pt_gev" else (-np.inf, np.inf)
    return edges


def _compare(
    event: Event, labels: np.ndarray, fiducial: Fiducial
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, float]:
    """Of one event: (track, particle) pairs, tracks, fiducial particles, TrackML weight."""
    labels = np.asarray(labels)
    if labels.shape != (len(event.hits),):
        raise ValueError(
            f"{event.name}: {len(event.hits)} hits, but tracks of shape {labels.shape}"
        )
    parameters = track_parameters(event, labels)
    long = parameters[
        (parameters.hits >= fiducial.min_track_hits)
        & (parameters.layers >= fiducial.min_track_layers)
    ]
    particle_hits = event.hits[event.hits.particle_id != 0].groupby("particle_id").size()
    on_track = event.hits.assign(track=labels)[np.isin(labels, long.index)]
    pairs = (
        on_track[on_track.particle_id != 0]
        .groupby(["track", "particle_id"])
        .agg(shared=("hit_id", "size"), weight=("weight", "sum"))
        .reset_index()
    )
    pairs["purity"] = pairs.shared / long.hits.reindex(pairs.track).to_numpy()
    pairs["efficiency"] = pairs.shared / particle_hits.reindex(pairs.particle_id).to_numpy()
    pure, complete = pairs.purity >= 0.5, pairs.efficiency >= 0.5
    pairs["atlas"], pairs["one-way"], pairs["two-way"] = pure, complete, pure & complete
    mask = fiducial.select(event)
    chosen = event.particles[mask]
    pairs["fiducial"] = pairs.particle_id.isin(chosen.particle_id)
    tracks = pd.DataFrame(index=long.index)
    for rule, good in (("atlas", pure), ("one-way", pure), ("two-way", pure & complete)):
        tracks[rule] = long.index.isin(pairs.track[good])
    tracks["counts"] = (long.pt_gev >= fiducial.min_track_pt_gev) & (
        long.eta.abs() <= fiducial.max_track_abs_eta
    )
    particles = pd.DataFrame(
        {
            "event": event.name,
            "particle_id": chosen.particle_id,
            "pt_gev": transverse_momentum(chosen),
            "eta": pseudorapidity(chosen),
            **{rule: chosen.particle_id.isin(pairs.particle_id[pairs[rule]]) for rule in RULES},
        }
    )
    majority = (pairs.purity > 0.5) & (pairs.efficiency > 0.5)
    return pairs, tracks, particles, float(pairs.weight[majority].sum())


def _row(
    rule: str, pairs: pd.DataFrame, tracks: pd.DataFrame, particles: pd.DataFrame
) -> dict[str, object]:
    reconstructed = int(particles[rule].sum())
    counted = tracks[tracks.counts]
    fakes = int((~counted[rule]).sum())
    duplicates = int((pairs[rule] & pairs.fiducial).sum()) - reconstructed
    efficiency, efficiency_error = binomial(reconstructed, len(particles))
    fake_rate, fake_rate_error = binomial(fakes, len(counted))
    duplicate_rate, duplicate_error = binomial(duplicates, reconstructed)
    return {
        "rule": rule,
        "efficiency": efficiency,
        "efficiency_error": efficiency_error,
        "fake_rate": fake_rate,
        "fake_rate_error": fake_rate_error,
        "duplicate_rate": duplicate_rate,
        "duplicate_rate_error": duplicate_error,
        "particles": len(particles),
        "reconstructed": reconstructed,
        "tracks": len(counted),
        "fakes": fakes,
        "duplicates": duplicates,
        "fake_rate_all": float((~tracks[rule]).mean()) if len(tracks) else float("nan"),
        "tracks_all": len(tracks),
    }
