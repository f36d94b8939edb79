"""Hits of an event as arrays, and the geometry of pairs of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sml_kernel.tracking.events import Event, InputError, transverse_momentum

_LAYERS = 1 << 16  # a layer's key is volume · _LAYERS + layer


class Hits:
    """Columns of an event's hits as arrays, with cylinder coordinates and truth."""

    def __init__(self, event: Event) -> None:
        hits, particles = event.hits, event.particles
        if len(hits) > 1 and (hits.layer_id == 0).all():
            raise InputError(
                f"{event.name}: layer_id is 0 for all {len(hits)} hits: its source does not tell "
                "layers, and segments join neighbouring layers"
            )
        x, y = hits.x.to_numpy(float), hits.y.to_numpy(float)
        self.x, self.y, self.z = x, y, hits.z.to_numpy(float)
        self.r, self.phi = np.hypot(x, y), np.arctan2(y, x)
        self.eta = np.arcsinh(self.z / np.maximum(self.r, 1e-9))
        self.layer = layer_key(hits)
        pt = pd.Series(transverse_momentum(particles), particles.particle_id.to_numpy())
        self.pt_gev = pt.reindex(hits.particle_id).fillna(0.0).to_numpy(copy=True)


def layer_key(hits: pd.DataFrame) -> np.ndarray:
    return hits.volume_id.to_numpy(np.int64) * _LAYERS + hits.layer_id.to_numpy(np.int64)


def geometry(hits: Hits, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """What cuts and features are made of; lengths in mm, curvature in 1/m."""
    dr, dz = hits.r[b] - hits.r[a], hits.z[b] - hits.z[a]
    dphi = wrap(hits.phi[b] - hits.phi[a])
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


def expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts [2, 0, 3]: rows [0, 0, 2, 2, 2] and offsets [0, 1, 0, 1, 2]."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


def wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
