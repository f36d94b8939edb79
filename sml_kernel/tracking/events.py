"""The `Event`: hits, truth and particles of one collision, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

#: name → dtype. Lengths in mm, momenta in GeV. ``particle_id`` 0 is noise.
HIT_COLUMNS = {
    "hit_id": "int64",
    "x": "float32",
    "y": "float32",
    "z": "float32",
    "volume_id": "int32",
    "layer_id": "int32",
    "module_id": "int64",
    "particle_id": "int64",
    "weight": "float32",
}
PARTICLE_COLUMNS = {
    "particle_id": "int64",
    "particle_type": "int32",
    "vx": "float32",
    "vy": "float32",
    "vz": "float32",
    "px": "float32",
    "py": "float32",
    "pz": "float32",
    "q": "int32",
    "primary": "bool",
}


class InputError(ValueError):
    """Data that cannot be read or used; the message names file, row and column, and what to do."""


@dataclass(frozen=True)
class Event:
    """One collision.

    Attributes
    ----------
    name
        Where it came from: ``"event000001000"``, ``"simulated 17"``.
    hits
        A row a measured point, columns `HIT_COLUMNS`. ``x, y, z`` are measured (smeared)
        positions. ``weight`` is the TrackML importance of a hit, 1 for each hit of a particle
        where the source has none, 0 for noise.
    particles
        A row a generated charged particle, columns `PARTICLE_COLUMNS`, also those without hits:
        efficiency is over generated particles. ``particle_type`` is the PDG code, 0 where the
        source does not say. ``primary`` tells particles of the generator from those made in the
        detector.
    """

    name: str
    hits: pd.DataFrame
    particles: pd.DataFrame

    @classmethod
    def of(cls, name: str, hits: pd.DataFrame, particles: pd.DataFrame) -> Event:
        """An event from tables with these columns; order and types are set, the rest dropped."""
        return cls(name, _conform(hits, HIT_COLUMNS), _conform(particles, PARTICLE_COLUMNS))

    def with_hits(self, hits: pd.DataFrame) -> Event:
        """The same event with other hits."""
        return replace(self, hits=_conform(hits, HIT_COLUMNS))

    def __repr__(self) -> str:
        noise = int((self.hits.particle_id == 0).sum())
        return (
            f"Event({self.name!r}: {len(self.hits):,} hits, {noise:,} of them noise, "
            f"{len(self.particles):,} particles)"
        )


def transverse_momentum(particles: pd.DataFrame) -> np.ndarray:
    """pT in GeV, shape [N]."""
    return np.hypot(particles.px.to_numpy(float), particles.py.to_numpy(float))


def pseudorapidity(particles: pd.DataFrame) -> np.ndarray:
    """η = arsinh(pz / pT), shape [N]; ±inf along the beam."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.arcsinh(particles.pz.to_numpy(float) / transverse_momentum(particles))


def _conform(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"an event's table lacks {', '.join(missing)}")
    return table[list(columns)].astype(columns).reset_index(drop=True)
