"""Proton collisions from Pythia 8, written as HepMC3 for the detector simulation.

Pythia is GPL and comes only with the extra ``physics``; `available` says whether it is here.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

#: Pythia's settings for each process, at 14 TeV.
PROCESSES = {
    "ttbar": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
    "minimum-bias": ("SoftQCD:inelastic = on",),
}
_COMMON = ("Print:quiet = on", "Beams:eCM = 14000.", "Random:setSeed = on", "Random:seed = 1")
_BEAMS = (1, 2)  # their places in a HepMC3 record, which counts from one
_DISPLACED_MM = 1e-6


def available() -> bool:
    """Whether Pythia 8 is installed."""
    return importlib.util.find_spec("pythia8mc") is not None


def write_hepmc3(path: Path, process: str, n_events: int, seed: int) -> None:
    """Generate collisions and write them to a HepMC3 text file.

    Parameters
    ----------
    path
        The file to write.
    process
        A key of `PROCESSES`.
    n_events
        How many collisions.
    seed
        1 … 900,000,000 (Pythia's range). The generator is set up once a process and seeded
        afresh here, so that a file depends on its seed alone and not on what came before it.
    """
    import pyhepmc

    pythia = _pythia(process)
    pythia.rndm.init(seed)
    with pyhepmc.open(str(path), "w") as stream:
        for number in range(n_events):
            if not pythia.next():
                raise RuntimeError(f"Pythia gave up on {process} event {number} of seed {seed}")
            stream.write(_hepmc3(pythia.event, number))


@functools.cache
def _pythia(process: str) -> Any:
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for setting in (*_COMMON, *PROCESSES[process]):
        pythia.readString(setting)
    if not pythia.init():
        raise RuntimeError(f"Pythia refused its settings for {process}")
    return pythia


def _hepmc3(event: Any, number: int) -> Any:
    """Final particles, and the particles that flew before they decayed, as a tree from the beams.

    Partons and resonances that decay where they were made are left out: each particle hangs on
    the nearest ancestor that flew, or on the collision. The detector simulation needs no more,
    and reads this ten times faster than the full record.
    """
    import pyhepmc

    entries = list(event)
    place: dict[int, int] = {}  # Pythia's index → ours
    ancestor = [0] * len(entries)
    rows = [_row(entries[beam], 4) for beam in _BEAMS]
    parents = [(0, 0), (0, 0)]
    for index, particle in enumerate(entries[3:], start=3):
        mother = particle.mother1()
        ancestor[index] = mother if mother in place else ancestor[mother]
        final = particle.isFinal()
        if final or particle.tDec() - particle.tProd() > _DISPLACED_MM:
            rows.append(_row(particle, 1 if final else 2))
            place[index] = len(rows)
            above = ancestor[index]
            parents.append((place[above], place[above]) if above else _BEAMS)
    columns = np.array(rows, float).T.copy()
    record = pyhepmc.GenEvent()
    record.from_hepevt(
        number,
        *columns[:5],
        columns[5].astype(np.int32),
        columns[6].astype(np.int32),
        parents=np.array(parents, np.int32),
        vx=columns[7],
        vy=columns[8],
        vz=columns[9],
        vt=columns[10],
    )
    return record


def _row(particle: Any, status: int) -> tuple[float, ...]:
    momentum = (particle.px(), particle.py(), particle.pz(), particle.e(), particle.m())
    vertex = (particle.xProd(), particle.yProd(), particle.zProd(), particle.tProd())
    return (*momentum, particle.id(), status, *vertex)
