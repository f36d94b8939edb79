"""ACTS' seeding and Kalman filter on our events: the very same hits, and a fair opponent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sml_kernel.tracking import (
    Event,
    InputError,
    KalmanSettings,
    kalman_tracks,
    read_trackml,
    score_tracks,
    simulate,
)
from sml_kernel.tracking.kalman import STAGES, reconstruct
from sml_kernel.tracking.whiteboard import HitReader


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Pions from four vertices, enough of them to confuse a filter that is set up badly."""
    cache = tmp_path_factory.mktemp("events")
    return simulate(3, 3, 1, process="gun", gun_particles=50, cache=cache, progress=False)


def test_measurements_are_the_hits_one_by_one(events: list[Event]) -> None:
    """ACTS' own transformation takes each measurement back to where its hit is."""
    import acts

    from sml_kernel.tracking.detector import RESOLUTION_MM, VOLUMES, generic_detector

    found = {}
    generic_detector()["geometry"].visitSurfaces(
        lambda surface: found.__setitem__(surface.geometryId.value, surface)
    )
    context, along = acts.GeometryContext.dangerouslyDefaultConstruct(), acts.Vector3(0, 0, 1)
    handed = HitReader(events[0])
    assert sorted(handed.order) == list(range(len(events[0].hits)))
    table = events[0].hits.iloc[handed.order]
    for measurement, hit in zip(handed.measurements(), table.itertuples(), strict=True):
        sensor = measurement.geometryId
        assert (sensor.volume, sensor.layer) == (hit.volume_id, hit.layer_id)
        assert sensor.sensitive == hit.module_id
        local = acts.Vector2(measurement.fullParameters[0], measurement.fullParameters[1])
        place = found[sensor.value].localToGlobal(context, local, along)
        apart = [place[i] - at for i, at in enumerate((hit.x, hit.y, hit.z))]
        assert np.linalg.norm(apart) < 0.1
        (part,) = (part for part, volumes in VOLUMES.items() if hit.volume_id in volumes)
        covariance = measurement.fullCovariance
        errors = np.sqrt([covariance[0, 0], covariance[1, 1]])
        assert errors == pytest.approx(RESOLUTION_MM[part])


def test_it_is_a_fair_opponent(events: list[Event]) -> None:
    scores = score_tracks(events, kalman_tracks(events), "central").row("two-way")
    assert scores["particles"] > 300
    assert scores["efficiency"] > 0.98
    assert scores["fake_rate"] < 0.01
    assert scores["duplicate_rate"] < 0.01


def test_tracks_follow_the_hits_wherever_they_stand_in_the_table(events: list[Event]) -> None:
    shuffled = np.random.default_rng(0).permutation(len(events[0].hits))
    other = events[0].with_hits(events[0].hits.iloc[shuffled])
    one, two = kalman_tracks([events[0], other])
    pairs = set(zip(one[shuffled].tolist(), two.tolist(), strict=True))
    assert len(pairs) == len(set(one.tolist())) == len(set(two.tolist()))
    assert (-1, -1) in pairs


def test_settings_reach_acts_and_every_stage_is_timed(events: list[Event]) -> None:
    usual, hard = (
        reconstruct(events[0], settings) for settings in (None, KalmanSettings(min_pt_gev=5))
    )
    assert hard.tracks.max() < 0.6 * usual.tracks.max()
    assert list(usual.seconds) == list(STAGES)
    assert all(seconds > 0 for seconds in usual.seconds.values())


def test_hits_on_no_sensor_or_off_theirs_are_refused(events: list[Event]) -> None:
    hits = events[0].hits
    seventh = hits.hit_id == 7
    with pytest.raises(InputError, match=r"hit 7 .* lies on no sensor"):
        kalman_tracks(events[0].with_hits(hits.assign(module_id=hits.module_id.mask(seventh, 0))))
    with pytest.raises(InputError, match=r"hit 7 .* off the sensor it names, as do 0 others"):
        kalman_tracks(
            events[0].with_hits(
                hits.assign(x=hits.x.mask(seventh, 9e3), z=hits.z.mask(seventh, 9e3))
            )
        )


def test_hits_of_another_detector_are_refused(shared: Callable[[str], Path]) -> None:
    (event,) = read_trackml(shared("trackml"))
    with pytest.raises(InputError, match="only events of ACTS' Generic detector"):
        kalman_tracks(event)
