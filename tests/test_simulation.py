"""Simulated events: the same for the same seed, smeared as stated, cached whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sml_kernel as sml
from sml_kernel.tracking import Event, generator, simulate
from sml_kernel.tracking.detector import RESOLUTION_MM, VOLUMES
from sml_kernel.tracking.simulation import CHUNK

GUN = {"process": "gun", "progress": False, "gun_particles": 20}


def same(one: Event, other: Event) -> bool:
    return one.hits.equals(other.hits) and one.particles.equals(other.particles)


def test_same_seed_same_events_and_more_extend_fewer(tmp_path: Path) -> None:
    first = simulate(CHUNK + 2, seed=5, cache=tmp_path / "a", **GUN)
    again = simulate(3, seed=5, cache=tmp_path / "b", **GUN)
    other = simulate(3, seed=6, cache=tmp_path / "b", **GUN)
    assert len(first) == CHUNK + 2
    assert all(same(one, two) for one, two in zip(first[:3], again, strict=True))
    assert not same(again[0], other[0])
    assert len({event.name for event in first}) == CHUNK + 2
    assert not same(first[0], first[CHUNK])


def test_a_chunk_is_made_once(tmp_path: Path) -> None:
    simulate(1, cache=tmp_path, **GUN)
    made = sorted(tmp_path.glob("*/chunk-*/*"))
    times = [path.stat().st_mtime_ns for path in made]
    simulate(CHUNK, cache=tmp_path, **GUN)
    assert [path.stat().st_mtime_ns for path in made] == times
    assert sorted(tmp_path.glob("*/chunk-*/*")) == made
    assert not list(tmp_path.glob("*/.partial*"))


def test_positions_are_smeared_by_the_stated_resolution(tmp_path: Path) -> None:
    smeared, true = (
        pd.concat([e.hits for e in simulate(CHUNK, 3, 1, smear=s, cache=tmp_path, **GUN)])
        for s in (True, False)
    )
    across = np.hypot(true.x, true.y) * np.arctan2(
        smeared.y * true.x - smeared.x * true.y, smeared.x * true.x + smeared.y * true.y
    )
    along_z = smeared.z - true.z
    along_r = np.hypot(smeared.x, smeared.y) - np.hypot(true.x, true.y)
    for part, volumes in VOLUMES.items():
        expected_across, expected_along = RESOLUTION_MM[part]
        barrel, endcaps = true.volume_id == volumes[1], true.volume_id.isin(volumes[::2])
        assert across[barrel | endcaps].std() == pytest.approx(expected_across, rel=0.1)
        assert along_z[barrel].std() == pytest.approx(expected_along, rel=0.1)
        assert along_r[endcaps].std() == pytest.approx(expected_along, rel=0.1)
        assert (along_z[endcaps] == 0).all()


def test_noise_is_as_much_as_asked_and_marked(tmp_path: Path) -> None:
    clean = simulate(2, cache=tmp_path, **GUN)
    noisy = simulate(2, noise=0.2, cache=tmp_path, **GUN)
    for one, other in zip(clean, noisy, strict=True):
        noise = other.hits[other.hits.particle_id == 0]
        assert len(noise) == round(0.2 * len(one.hits))
        assert (noise.weight == 0).all()
        assert other.hits.hit_id.tolist() == list(range(1, len(other.hits) + 1))
        kept = other.hits[other.hits.particle_id != 0].drop(columns="hit_id")
        key = ["x", "y", "z"]
        ours = one.hits.drop(columns="hit_id").sort_values(key, ignore_index=True)
        assert kept.sort_values(key, ignore_index=True).equals(ours)


def test_workers_make_the_same_events(tmp_path: Path) -> None:
    here = simulate(2 * CHUNK, seed=9, cache=tmp_path / "here", **GUN)
    with sml.launch("laptop", cpus=2, folder=tmp_path / "workers") as workers:
        there = simulate(2 * CHUNK, seed=9, cache=tmp_path / "there", workers=workers, **GUN)
    assert all(same(one, other) for one, other in zip(here, there, strict=True))


def test_pythia_events_depend_on_nothing_but_their_seed(tmp_path: Path) -> None:
    """The generator is set up once a process: what it made before must not matter."""
    if not generator.available():
        assert os.environ.get("CI") != "true", "CI=true wants Pythia: make install brings it"
        pytest.skip("no Pythia: pip install 'sml-kernel[physics]'")
    two = simulate(2 * CHUNK, pileup=1, seed=7, cache=tmp_path / "a", progress=False)
    (made,) = (tmp_path / "a").glob("*/chunk-000001")
    for path in made.iterdir():
        path.unlink()
    made.rmdir()
    again = simulate(2 * CHUNK, pileup=1, seed=7, cache=tmp_path / "a", progress=False)
    assert all(same(one, other) for one, other in zip(two, again, strict=True))
    particles = pd.concat([event.particles for event in two])
    assert (np.hypot(particles.px, particles.py) > 20).any()  # a hard collision, not only soft
    assert particles.primary.mean() > 0.5


def test_without_pythia_the_gun_serves_and_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(generator, "available", lambda: False)
    with pytest.warns(UserWarning, match="from a gun instead"):
        events = simulate(1, cache=tmp_path, progress=False)
    assert (events[0].particles[events[0].particles.primary].particle_type.abs() == 211).all()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known: ttbar, gun"):
        simulate(1, process="higgs", cache=tmp_path)
    with pytest.raises(ValueError, match="not below 0"):
        simulate(1, pileup=-1, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
