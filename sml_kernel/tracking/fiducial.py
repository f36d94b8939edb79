"""Which particles and which tracks count in a figure: a `Fiducial` value, printed with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sml_kernel.tracking.events import Event, pseudorapidity, transverse_momentum

_ELECTRON = 11


@dataclass(frozen=True)
class Fiducial:
    """Which particles and which tracks count.

    Attributes
    ----------
    min_pt_gev, max_abs_eta
        Transverse momentum and pseudorapidity of the particle.
    min_hits, min_layers
        Its hits, and the distinct layers they lie on.
    primary
        Only particles of the generator, none made in the detector.
    electrons
        Whether electrons count.
    max_radius_mm
        Radius of its production vertex.
    min_track_hits, min_track_layers
        Tracks below either do not enter any figure.
    min_track_pt_gev, max_track_abs_eta
        Momentum (`track_parameters`) of the tracks that enter the fake rate; efficiency is not
        touched by it.
    volumes
        The part of the detector that the protocol looks at, by volume ids; empty: all of it. Events
        must hold no other hits (`restrict`): hits that a tracker was never shown would count
        against it.
    rule
        The matching rule of its headline: ``"atlas"``, ``"one-way"`` or ``"two-way"`` (see
        `sml_kernel.tracking.metrics`; all three are always worked out).
    """

    min_pt_gev: float = 1.0
    max_abs_eta: float = 4.0
    min_hits: int = 3
    min_layers: int = 1
    primary: bool = True
    electrons: bool = True
    max_radius_mm: float = float("inf")
    min_track_hits: int = 3
    min_track_layers: int = 1
    min_track_pt_gev: float = 0.0
    max_track_abs_eta: float = float("inf")
    volumes: tuple[int, ...] = ()
    rule: str = "two-way"

    @classmethod
    def preset(cls, name: str) -> Fiducial:
        """A named selection; an unknown name raises and lists the known.

        ``central``
            What the tour shows; tracks enter the fake rate as particles enter the efficiency.
        ``hepattn``
            Van Stroud et al., arXiv:2411.07149: TrackML's pixels alone, pT > 0.6 GeV, |η| < 2.5,
            3 hits, particles of any origin, both majorities (their "double majority").
        ``exatrkx``
            Ju et al., arXiv:2103.06995 (technical efficiency): TrackML, pT > 0.5 GeV, |η| < 4,
            5 hits, particles of any origin, both majorities.
        ``gnn4itk``, ``acorn-ctd2023``
            The GNN4ITk figures of CTD 2023, as acorn's ``examples/CTD_2023`` configures them (the
            chain: arXiv:2103.00916): ITk, primaries of pT > 1 GeV, |η| < 4, 3 hits, made within
            260 mm, no electrons; tracks of 5 hits; ATLAS' matching.

        Published figures are of other simulations. Fatras, which `simulate` runs, makes a hit for
        every crossing: no merged clusters, no noise unless asked for, no lost hits. The selection
        makes figures comparable in what is counted, not in how hard the events are.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown fiducial {name!r}; known: {', '.join(PRESETS)}")
        return PRESETS[name]

    def restrict(self, event: Event) -> Event:
        """The event with hits in `volumes` only, to build graphs of; unchanged if these are all."""
        if not self.volumes:
            return event
        return event.with_hits(event.hits[event.hits.volume_id.isin(self.volumes)])

    def select(self, event: Event) -> np.ndarray:
        """Mask over ``event.particles``, shape [P].

        Raises
        ------
        ValueError
            The event has hits outside `volumes`.
        """
        if self.volumes and not event.hits.volume_id.isin(self.volumes).all():
            raise ValueError(
                f"{event.name} has hits outside volumes {', '.join(map(str, self.volumes))}, which "
                "this fiducial is about: find and score tracks in fiducial.restrict(event)"
            )
        particles = event.particles
        hits, layers = _hits_and_layers(event)
        chosen = (
            (transverse_momentum(particles) >= self.min_pt_gev)
            & (np.abs(pseudorapidity(particles)) <= self.max_abs_eta)
            & (hits >= self.min_hits)
            & (layers >= self.min_layers)
            & (np.hypot(particles.vx, particles.vy).to_numpy() <= self.max_radius_mm)
        )
        if self.primary:
            chosen &= particles.primary.to_numpy()
        if not self.electrons:
            chosen &= particles.particle_type.abs().to_numpy() != _ELECTRON
        return chosen

    def short(self) -> str:
        """The cuts that matter most, for the title of a figure."""
        return (
            f"{self.rule}, pT ≥ {self.min_pt_gev:g} GeV, |η| ≤ {self.max_abs_eta:g}, "
            f"≥ {self.min_hits} hits, ≥ {self.min_layers} layers{self._where()}"
        )

    def __str__(self) -> str:
        kind = "primaries" if self.primary else "particles"
        near = "" if np.isinf(self.max_radius_mm) else f"made within {self.max_radius_mm:g} mm, "
        return (
            f"{kind} of pT ≥ {self.min_pt_gev:g} GeV, |η| ≤ {self.max_abs_eta:g}, "
            f"≥ {self.min_hits} hits on ≥ {self.min_layers} distinct layers{self._where()}, {near}"
            f"electrons {'in' if self.electrons else 'out'}; tracks of "
            f"≥ {self.min_track_hits} hits on ≥ {self.min_track_layers} layers, those in the fake "
            f"rate of fitted pT ≥ {self.min_track_pt_gev:g} GeV, |η| ≤ {self.max_track_abs_eta:g}"
        )

    def _where(self) -> str:
        return f" in volumes {', '.join(map(str, self.volumes))}" if self.volumes else ""


_GNN4ITK = Fiducial(electrons=False, max_radius_mm=260.0, min_track_hits=5, rule="atlas")
#: What each is, and where it was published: `Fiducial.preset`.
PRESETS = {
    "acorn-ctd2023": _GNN4ITK,
    "central": Fiducial(
        max_abs_eta=2.5,
        min_hits=4,
        min_layers=4,
        min_track_hits=4,
        min_track_layers=4,
        min_track_pt_gev=1.0,
        max_track_abs_eta=2.5,
    ),
    "exatrkx": Fiducial(
        min_pt_gev=0.5,
        min_hits=5,
        primary=False,
        min_track_hits=5,
        min_track_pt_gev=0.5,
        max_track_abs_eta=4.0,
    ),
    "gnn4itk": _GNN4ITK,
    "hepattn": Fiducial(
        min_pt_gev=0.6,
        max_abs_eta=2.5,
        primary=False,
        min_track_pt_gev=0.6,
        max_track_abs_eta=2.5,
        volumes=(7, 8, 9),
    ),
}


def _hits_and_layers(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Hits and distinct layers of each particle of the event, shapes [P]."""
    ids = event.particles.particle_id
    by_layer = event.hits.groupby(["particle_id", "volume_id", "layer_id"]).size()
    groups = by_layer.groupby("particle_id")
    hits, layers = groups.sum().reindex(ids).fillna(0), groups.size().reindex(ids).fillna(0)
    return hits.to_numpy(), layers.to_numpy()
