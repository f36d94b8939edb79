"""Hits in the frames of the sensors they lie on, which is where ACTS measures."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from sml_kernel.tracking import detector
from sml_kernel.tracking.events import Event, InputError

#: A smeared hit is less than 0.1 mm off its sensor; noise, moved along a cylinder, up to some mm.
_MAX_OFF_SENSOR_MM = 10.0


@dataclass(frozen=True)
class Sensors:
    """The sensors of the Generic detector.

    Attributes
    ----------
    geometry_id
        [S] uint64, ascending; ACTS' identifiers.
    rotation
        [S, 3, 3] whose columns are the sensor's axes in the detector: across, along, normal.
    centre
        [S, 3] in mm.
    """

    geometry_id: np.ndarray
    rotation: np.ndarray
    centre: np.ndarray


def local_positions(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Where an event's hits lie on their sensors.

    Parameters
    ----------
    event
        From `sml_kernel.tracking.simulate`, or ACTS' files of its Generic detector.

    Returns
    -------
    ndarray, ndarray
        [N] geometry identifiers, and [N, 2] positions across and along the sensor in mm.

    Raises
    ------
    InputError
        A hit on no sensor of the Generic detector, or away from the sensor it is said to be on
        (as in TrackML's end caps, whose modules are numbered otherwise).
    """
    sensors, hits = generic_sensors(), event.hits
    parts = (hits.volume_id, hits.layer_id, hits.module_id)
    volume, layer, module = (part.to_numpy(np.uint64) for part in parts)
    wanted = (volume << np.uint64(56)) | (layer << np.uint64(36)) | (module << np.uint64(8))
    row = np.minimum(np.searchsorted(sensors.geometry_id, wanted), len(sensors.geometry_id) - 1)
    _refuse(event, sensors.geometry_id[row] != wanted, "lies on no sensor of the Generic detector")
    from_centre = hits[["x", "y", "z"]].to_numpy(float) - sensors.centre[row]
    local = np.einsum("nij,ni->nj", sensors.rotation[row], from_centre)
    off = np.abs(local[:, 2]) > _MAX_OFF_SENSOR_MM
    _refuse(event, off, f"lies more than {_MAX_OFF_SENSOR_MM:g} mm off the sensor it names")
    return wanted, local[:, :2]


@functools.cache
def generic_sensors() -> Sensors:
    """All sensors of the detector that events are simulated in."""
    import acts

    found: dict[int, Any] = {}
    geometry = detector.generic_detector()["geometry"]
    geometry.visitSurfaces(lambda surface: found.__setitem__(surface.geometryId.value, surface))
    context = acts.GeometryContext.dangerouslyDefaultConstruct()  # nothing is misaligned here
    ids = sorted(found)
    frames = [found[each].localToGlobalTransform(context) for each in ids]
    return Sensors(
        np.array(ids, np.uint64),
        np.array([[[f.rotation[i, j] for j in range(3)] for i in range(3)] for f in frames]),
        np.array([[frame.translation[i] for i in range(3)] for frame in frames]),
    )


def _refuse(event: Event, wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        hit = event.hits.iloc[int(wrong.argmax())]
        raise InputError(
            f"{event.name}: hit {hit.hit_id:.0f} (volume {hit.volume_id:.0f}, layer "
            f"{hit.layer_id:.0f}, module {hit.module_id:.0f}) {what}, as do {wrong.sum() - 1} "
            "others: only events of ACTS' Generic detector can be reconstructed by ACTS here, "
            "such as tracking.simulate makes"
        )
