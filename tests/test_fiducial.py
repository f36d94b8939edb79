"""Published selections count what their protocols count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sml_kernel.tracking import Event, Fiducial, score_tracks, simulate

PIXELS = (7, 8, 9)


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> Event:
    cache: Path = tmp_path_factory.mktemp("events")
    (made,) = simulate(1, 3, 2, process="gun", gun_particles=50, cache=cache, progress=False)
    return made


def kinematics(event: Event) -> tuple[np.ndarray, np.ndarray]:
    pt = np.hypot(event.particles.px, event.particles.py)
    return pt.to_numpy(), np.arcsinh(event.particles.pz / pt).abs().to_numpy()


def hits_in(event: Event, volumes: tuple[int, ...]) -> np.ndarray:
    hits = event.hits[event.hits.volume_id.isin(volumes)]
    return hits.groupby("particle_id").size().reindex(event.particles.particle_id, fill_value=0)


def test_hepattn_is_about_pixels_alone(event: Event) -> None:
    fiducial = Fiducial.preset("hepattn")
    with pytest.raises(ValueError, match=r"hits outside volumes 7, 8, 9.*fiducial.restrict"):
        score_tracks(event, np.full(len(event.hits), -1), fiducial)
    pixels = fiducial.restrict(event)
    assert set(pixels.hits.volume_id) == set(PIXELS)
    pt, eta = kinematics(event)
    expected = (pt >= 0.6) & (eta <= 2.5) & (hits_in(event, PIXELS) >= 3)
    assert 0 < expected.sum() < len(expected)
    assert (fiducial.select(pixels) == expected).all()
    assert "in volumes 7, 8, 9" in str(fiducial)
    truth = np.unique(pixels.hits.particle_id, return_inverse=True)[1]
    assert score_tracks(pixels, truth, fiducial).row()["efficiency"] == 1


def test_exatrkx_takes_soft_and_secondary_particles(event: Event) -> None:
    fiducial = Fiducial.preset("exatrkx")
    pt, eta = kinematics(event)
    every = tuple(event.hits.volume_id.unique())
    expected = (pt >= 0.5) & (eta <= 4) & (hits_in(event, every) >= 5)
    assert (fiducial.select(event) == expected).all()
    made_in_the_detector = replace(event, particles=event.particles.assign(primary=False))
    assert (fiducial.select(made_in_the_detector) == expected).all()
    assert not Fiducial.preset("central").select(made_in_the_detector).any()
    assert fiducial.restrict(event) is event


def test_gnn4itk_is_acorns_selection() -> None:
    assert Fiducial.preset("gnn4itk") == Fiducial.preset("acorn-ctd2023")
    assert Fiducial.preset("gnn4itk").rule == "atlas"
