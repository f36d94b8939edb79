"""ACTS' Generic detector (TrackML's layout) in a 2 T field, its simulation and its resolution."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Detector part → volume ids. The middle one of three is the barrel.
VOLUMES = {"pixels": (7, 8, 9), "short strips": (12, 13, 14), "long strips": (16, 17, 18)}
BARRELS = (8, 13, 17)
#: Detector part → standard deviation in mm across (r·φ) and along (z in the barrel, r in an
#: endcap) a sensor: cells of 0.05 × 0.05, 0.08 × 1.2 and 0.12 × 10.8 mm, divided by √12, as in
#: ACTS' digitisation of this detector.
RESOLUTION_MM = {
    "pixels": (0.0144, 0.0144),
    "short strips": (0.0231, 0.3464),
    "long strips": (0.0346, 3.1177),
}
#: Spread of the collisions about the centre, in mm (x, y, z) and ns.
BEAM_SPOT = (0.0125, 0.0125, 55.5, 5.0)
FIELD_T = 2.0
_MIN_PT_MEV = 150
_MAX_ABS_ETA = 4.0


def simulate_hepmc3(
    hard: Path, pileup: Path, per_event: int, n_events: int, seed: int, out: Path
) -> None:
    """A hard collision and `per_event` of pile-up an event, through Fatras, as CSV in `out`."""
    import acts
    import acts.examples
    import acts.examples.hepmc3 as hepmc3
    from acts.examples.simulation import ParticleSelectorConfig, addGenParticleSelection

    sequencer, random = _sequencer(n_events, seed)
    fixed = hepmc3.HepMC3Reader.Input.Fixed
    sequencer.addReader(
        hepmc3.HepMC3Reader(
            inputs=[fixed(hard, 1)] + ([fixed(pileup, per_event)] if per_event else []),
            outputEvent="collisions",
            randomNumbers=random,
            vertexGenerator=_beam_spot(),
            numEvents=n_events,
            checkEventNumber=False,
            level=acts.logging.WARNING,
        )
    )
    sequencer.addAlgorithm(
        hepmc3.HepMC3InputConverter(
            inputEvent="collisions",
            outputParticles="particles_generated",
            outputVertices="vertices",
            mergePrimaries=False,
            level=acts.logging.WARNING,
        )
    )
    mm, mev = acts.UnitConstants.mm, acts.UnitConstants.MeV
    selection = ParticleSelectorConfig(
        rho=(0, 24 * mm),
        absZ=(0, 1000 * mm),
        eta=(-_MAX_ABS_ETA, _MAX_ABS_ETA),
        pt=(_MIN_PT_MEV * mev, None),
    )
    addGenParticleSelection(sequencer, selection)
    _run(sequencer, random, out)


def simulate_gun(vertices: int, particles: int, n_events: int, seed: int, out: Path) -> None:
    """Charged pions, log-uniform in 0.3 < pT < 20 GeV and flat in |η| < 3, through Fatras."""
    import acts
    from acts.examples.simulation import (
        EtaConfig,
        MomentumConfig,
        ParticleConfig,
        addParticleGun,
    )

    gev = acts.UnitConstants.GeV
    sequencer, random = _sequencer(n_events, seed)
    addParticleGun(
        sequencer,
        MomentumConfig(0.3 * gev, 20 * gev, transverse=True, logUniform=True),
        EtaConfig(-3.0, 3.0, uniform=True),
        particleConfig=ParticleConfig(particles, acts.PdgParticle.ePionPlus, randomizeCharge=True),
        multiplicity=vertices,
        vtxGen=_beam_spot(),
        rnd=random,
    )
    sequencer.addWhiteboardAlias("particles_generated_selected", "particles_generated")
    _run(sequencer, random, out)


def smear(hits: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Move hits within their sensors by `RESOLUTION_MM`.

    Hits move across by r·δφ, and along z in the barrel or along r in an endcap; a hit keeps the
    layer it is on.
    """
    across, along = resolution(hits.volume_id.to_numpy())
    x, y, z = (hits[name].to_numpy(float) for name in "xyz")
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    phi = phi + random.normal(0, across) / r
    shift = random.normal(0, along)
    barrel = np.isin(hits.volume_id, BARRELS)
    z = np.where(barrel, z + shift, z)
    r = np.where(barrel, r, r + shift)
    return hits.assign(x=r * np.cos(phi), y=r * np.sin(phi), z=z)


def add_noise(
    hits: pd.DataFrame, fraction: float, pool: pd.DataFrame, random: np.random.Generator
) -> pd.DataFrame:
    """Hits and `fraction` as many noise hits (``particle_id`` 0, weight 0) on modules of `pool`.

    A noise hit lies on the module of a hit drawn from `pool` (all events at hand), displaced
    uniformly by up to 10 mm across and along the sensor.
    """
    count = round(fraction * len(hits))
    noise = pool.iloc[random.integers(len(pool), size=count)]
    x, y, z = (noise[name].to_numpy(float) for name in "xyz")
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    phi, shift = phi + random.uniform(-10, 10, count) / r, random.uniform(-10, 10, count)
    barrel = np.isin(noise.volume_id, BARRELS)
    r, z = np.where(barrel, r, r + shift), np.where(barrel, z + shift, z)
    noise = noise.assign(x=r * np.cos(phi), y=r * np.sin(phi), z=z, particle_id=0, weight=0.0)
    both = pd.concat([hits, noise], ignore_index=True)
    order = random.permutation(len(both))  # a place in the table must not tell noise from signal
    return both.iloc[order].assign(hit_id=np.arange(1, len(both) + 1)).reset_index(drop=True)


def resolution(volume_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    table = np.full((int(max(map(max, VOLUMES.values()))) + 1, 2), np.nan)
    for part, volumes in VOLUMES.items():
        table[list(volumes)] = RESOLUTION_MM[part]
    across, along = table[volume_id].T
    return across, along


def _beam_spot() -> Any:
    import acts
    import acts.examples

    mm, ns = acts.UnitConstants.mm, acts.UnitConstants.ns
    x, y, z, t = BEAM_SPOT
    return acts.examples.GaussianVertexGenerator(
        stddev=acts.Vector4(x * mm, y * mm, z * mm, t * ns), mean=acts.Vector4(0, 0, 0, 0)
    )


def _sequencer(n_events: int, seed: int) -> tuple[Any, Any]:
    import acts
    import acts.examples

    sequencer = acts.examples.Sequencer(
        events=n_events, numThreads=1, logLevel=acts.logging.WARNING, trackFpes=False
    )
    return sequencer, acts.examples.RandomNumbers(seed=seed)


@functools.cache
def generic_detector() -> Mapping[str, Any]:
    import acts
    import acts.examples

    detector = acts.examples.GenericDetector(logLevel=acts.logging.WARNING)
    field = acts.ConstantBField(acts.Vector3(0, 0, FIELD_T * acts.UnitConstants.T))
    return {"detector": detector, "geometry": detector.trackingGeometry(), "field": field}


def _run(sequencer: Any, random: Any, out: Path) -> None:
    from acts.examples.simulation import addFatras

    generic = generic_detector()
    addFatras(sequencer, generic["geometry"], generic["field"], random, outputDirCsv=out)
    sequencer.run()
