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
    rule: str = "two-way"

    @classmethod
    def preset(cls, name: str) -> Fiducial:
        """A named selection, see `PRESETS`; an unknown name raises and lists the known."""
        if name not in PRESETS:
            raise ValueError(f"unknown fiducial {name!r}; known: {', '.join(PRESETS)}")
        return PRESETS[name]

    def select(self, event: Event) -> np.ndarray:
        """Mask over ``event.particles``, shape [P]."""
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
            f"≥ {self.min_hits} hits, ≥ {self.min_layers} layers"
        )

    def __str__(self) -> str:
        kind = "primaries" if self.primary else "particles"
        near = "" if np.isinf(self.max_radius_mm) else f"made within {self.max_radius_mm:g} mm, "
        return (
            f"{kind} of pT ≥ {self.min_pt_gev:g} GeV, |η| ≤ {self.max_abs_eta:g}, "
            f"≥ {self.min_hits} hits on ≥ {self.min_layers} distinct layers, {near}"
            f"electrons {'in' if self.electrons else 'out'}; tracks of "
            f"≥ {self.min_track_hits} hits on ≥ {self.min_track_layers} layers, those in the fake "
            f"rate of fitted pT ≥ {self.min_track_pt_gev:g} GeV, |η| ≤ {self.max_track_abs_eta:g}"
        )


#: ``acorn-ctd2023``: the selection of acorn's ITk figures (with the rule ``atlas``).
#: ``central``: what the tour shows; tracks enter the fake rate as particles enter the efficiency.
PRESETS = {
    "acorn-ctd2023": Fiducial(electrons=False, max_radius_mm=260.0, min_track_hits=5, rule="atlas"),
    "central": Fiducial(
        max_abs_eta=2.5,
        min_hits=4,
        min_layers=4,
        min_track_hits=4,
        min_track_layers=4,
        min_track_pt_gev=1.0,
        max_track_abs_eta=2.5,
    ),
}


def _hits_and_layers(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Hits and distinct layers of each particle of the event, shapes [P]."""
    ids = event.particles.particle_id
    by_layer = event.hits.groupby(["particle_id", "volume_id", "layer_id"]).size()
    groups = by_layer.groupby("particle_id")
    hits, layers = groups.sum().reindex(ids).fillna(0), groups.size().reindex(ids).fillna(0)
    return hits.to_numpy(), layers.to_numpy()
