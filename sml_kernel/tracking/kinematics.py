"""Momentum of tracks from their hits alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sml_kernel.tracking.events import Event


def track_parameters(event: Event, labels: np.ndarray, field_t: float = 2.0) -> pd.DataFrame:
    """Momentum of tracks from their hits alone, for circles through the beam line.

    In the transverse plane such a circle of radius R obeys φ = φ₀ ± arcsin(r / 2R); the line of
    least squares in arcsin(r / 2R) gives R, and pT = 0.3 B R. η comes from the line z(r).

    Parameters
    ----------
    labels
        [N] the track of each hit, −1 where it has none.
    field_t
        Magnetic field in T.

    Returns
    -------
    DataFrame
        Indexed by track: ``pt_gev`` (inf for a straight one), ``eta``, ``hits``, ``layers``.
    """
    hits = event.hits.assign(track=labels)[labels >= 0]
    r = np.hypot(hits.x, hits.y).to_numpy(float)
    track, index = np.unique(hits.track.to_numpy(), return_inverse=True)
    phi = np.arctan2(hits.y, hits.x).to_numpy(float)
    reference = np.zeros(len(track))
    reference[index] = phi
    phi = (phi - reference[index] + np.pi) % (2 * np.pi) - np.pi
    slope = _slope(index, r, phi)
    for _ in range(2):  # r → 2R arcsin(r / 2R), which is r for straight tracks
        bend = np.clip(np.abs(slope)[index] * r, 0, 1)
        arc = np.arcsin(bend) / np.maximum(np.abs(slope)[index], 1e-12)
        slope = _slope(index, arc, phi)
    with np.errstate(divide="ignore"):
        pt = 0.3 * field_t / (2000 * np.abs(slope))
    layers = hits.drop_duplicates(["track", "volume_id", "layer_id"]).groupby("track").size()
    return pd.DataFrame(
        {
            "pt_gev": pt,
            "eta": np.arcsinh(_slope(index, r, hits.z.to_numpy(float))),
            "hits": np.bincount(index, minlength=len(track)),
            "layers": layers.to_numpy(),
        },
        index=pd.Index(track, name="track"),
    )


def _slope(index: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Least-squares slope dv/du in each group; 0 where u does not vary."""
    n = np.bincount(index)
    mean_u, mean_v = np.bincount(index, u) / n, np.bincount(index, v) / n
    du, dv = u - mean_u[index], v - mean_v[index]
    spread = np.bincount(index, du * du)
    return np.bincount(index, du * dv) / np.where(spread > 0, spread, np.inf)
