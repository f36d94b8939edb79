"""Events from files: the TrackML challenge's CSV, ACTS' CSV, and ColliderML's parquet and JSON.

Each reader gives the same `Event`. An event is given only when it is whole: all its files read,
every value checked, hits and particles agreeing with each other; otherwise `InputError` says
which file, row and column is wrong. Hits on no particle are noise, ``particle_id`` 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sml_kernel.tracking.colliderml import read_colliderml
from sml_kernel.tracking.events import HIT_COLUMNS, PARTICLE_COLUMNS, Event, InputError
from sml_kernel.tracking.tables import Table, read_csv

__all__ = ["geometry_columns", "pack_barcode", "read_acts_csv", "read_colliderml", "read_trackml"]

_FILE = re.compile(r"(event\d+)-(\w+)\.csv(\.gz)?")


def _columns(names: str, source: Mapping[str, str]) -> dict[str, str]:
    return {name: source[name] for name in names.split()}


_TRACKML_HITS = _columns("hit_id x y z volume_id layer_id module_id", HIT_COLUMNS)
_TRACKML_TRUTH = _columns("hit_id particle_id weight", HIT_COLUMNS)
_TRACKML_PARTICLES = _columns("particle_id vx vy vz px py pz q", PARTICLE_COLUMNS)

#: Components of an ACTS barcode: bits and position of each in the packed ``particle_id``.
_BARCODE = {"pv": (11, 52), "sv": (12, 40), "part": (16, 24), "gen": (8, 16), "subpart": (16, 0)}
_ACTS_BARCODE = {f"particle_id_{name}": "int64" for name in _BARCODE}
_ACTS_HITS = {
    **_ACTS_BARCODE,
    "geometry_id": "uint64",
    "tx": "float32",
    "ty": "float32",
    "tz": "float32",
    "index": "int32",
}
_ACTS_PARTICLES = {
    **_ACTS_BARCODE,
    **_columns("particle_type vx vy vz px py pz q", PARTICLE_COLUMNS),
}
#: What ACTS may call its particles, best first: those after the simulation include secondaries.
_ACTS_PARTICLE_FILES = ("particles_simulated", "particles")


def read_trackml(folder: str | os.PathLike[str]) -> Iterator[Event]:
    """Iterate over the events of a folder of TrackML files, in order of their numbers.

    Parameters
    ----------
    folder
        Holds ``eventNNNNNNNNN-{hits,truth,particles}.csv`` or ``.csv.gz``; what else lies there,
        also particles of an event without hits, is passed over.

    Yields
    ------
    Event
        Positions in mm, momenta in GeV, weights as the challenge gives them. ``primary`` are
        particles of generation 0 by the challenge's barcode (vertex 12 bits, primary 16,
        generation 12, secondary 12, process 12), which are those that the generator made;
        ``particle_type`` is 0 where the file has no such column.

    Raises
    ------
    InputError
        At once if the folder holds no event or one lacks a file; while iterating if a file is
        broken: see `sml_kernel.tracking.tables.read_csv`, and: a hit twice, a hit without truth,
        truth for a hit that is not there or by a particle that is not there, a particle twice.

    Notes
    -----
    Formats: https://www.kaggle.com/c/trackml-particle-identification/data.
    """
    events = _event_files(folder, ("hits",), ("truth",), ("particles",))
    return (_trackml_event(name, *paths) for name, *paths in events)


def read_acts_csv(folder: str | os.PathLike[str]) -> Iterator[Event]:
    """Iterate over the events of a folder of ACTS' simulated hits and particles as CSV.

    Parameters
    ----------
    folder
        Holds ``eventNNNNNNNNN-hits.csv`` and ``-particles_simulated.csv`` (or, without
        secondaries, ``-particles.csv``) as ``CsvSimHitWriter`` and ``CsvParticleWriter`` leave
        them; plain or gzipped.

    Yields
    ------
    Event
        Positions are the true ones, not smeared. ``hit_id`` counts the lines of the file from 1.
        ``particle_id`` packs the five parts of the barcode (`pack_barcode`); ``primary`` are those
        of generation 0 and sub-particle 0, which are those that the generator made. Neutral
        particles are left out.

    Raises
    ------
    InputError
        As for `read_trackml`; a hit is twice in the file when its particle has another of the
        same ``index``.
    """
    events = _event_files(folder, ("hits",), _ACTS_PARTICLE_FILES)
    return (_acts_event(name, *paths) for name, *paths in events)


def pack_barcode(barcodes: pd.DataFrame) -> np.ndarray:
    """One int64 for each ACTS barcode, shape [N].

    From the highest bit: primary vertex (11 bits), secondary vertex (12), particle (16),
    generation (8), sub-particle (16); so the parts can be had back by shifting and masking.

    Parameters
    ----------
    barcodes
        Columns ``particle_id_{pv,sv,part,gen,subpart}``, within the bits that each has.
    """
    packed = np.zeros(len(barcodes), np.int64)
    for name, (_, shift) in _BARCODE.items():
        packed |= barcodes[f"particle_id_{name}"].to_numpy(np.int64) << shift
    return packed


def geometry_columns(geometry_id: np.ndarray) -> dict[str, np.ndarray]:
    """Volume, layer and module of ACTS' 64-bit geometry identifiers, each of shape [N].

    Eight bits of volume, eight of boundary, twelve of layer, eight of approach surface, twenty of
    sensitive surface (the module) and eight of extra, from the highest bit.
    """
    bits = geometry_id.astype(np.uint64)
    return {
        "volume_id": (bits >> np.uint64(56)).astype(np.int32),
        "layer_id": ((bits >> np.uint64(36)) & np.uint64(0xFFF)).astype(np.int32),
        "module_id": ((bits >> np.uint64(8)) & np.uint64(0xFFFFF)).astype(np.int64),
    }


def _event_files(folder: str | os.PathLike[str], *kinds: tuple[str, ...]) -> list[tuple]:
    """(name, path, …) for each event: a path for each of `kinds`, the first of its names found.

    An event is what has a file of the first kind.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.iterdir()):
        if match := _FILE.fullmatch(path.name):
            name, kind = match[1], match[2]
            if kind in found.setdefault(name, {}):
                raise InputError(f"{path}: also there as {found[name][kind].name}; remove one")
            found[name][kind] = path
    events = sorted((name for name in found if kinds[0][0] in found[name]), key=_number)
    if not events:
        raise InputError(
            f"{root}: no event: it holds no file eventNNNNNNNNN-{kinds[0][0]}.csv[.gz]"
        )
    return [(name, *(_first(root, name, found[name], kind) for kind in kinds)) for name in events]


def _number(event: str) -> int:
    return int(event.removeprefix("event"))


def _first(root: Path, event: str, files: dict[str, Path], names: tuple[str, ...]) -> Path:
    for name in names:
        if name in files:
            return files[name]
    wanted = " or ".join(f"{event}-{name}.csv[.gz]" for name in names)
    raise InputError(f"{root}: {event} has hits but no {wanted}; copy it there as well")


def _trackml_event(name: str, hits_at: Path, truth_at: Path, particles_at: Path) -> Event:
    hits = _some_hits(read_csv(hits_at, _TRACKML_HITS))
    truth = read_csv(truth_at, _TRACKML_TRUTH)
    particles = read_csv(particles_at, _TRACKML_PARTICLES, {"particle_type": "int32"})
    hits.require_unique(["hit_id"], "hit")
    truth.require_unique(["hit_id"], "hit")
    truth.require_known("hit_id", hits.frame.hit_id, f"is no hit of {hits_at.name}")
    hits.require_known("hit_id", truth.frame.hit_id, f"has no row in {truth_at.name}")
    _agree(truth, particles)
    rows = pd.Index(truth.frame.hit_id).get_indexer(hits.frame.hit_id)
    of_hits = truth.frame.iloc[rows].reset_index(drop=True)
    generation = (particles.frame.particle_id.to_numpy() >> 24) & 0xFFF
    made = particles.frame.assign(primary=generation == 0)
    made["particle_type"] = made.get("particle_type", 0)
    return Event.of(
        name, hits.frame.assign(particle_id=of_hits.particle_id, weight=of_hits.weight), made
    )


def _acts_event(name: str, hits_at: Path, particles_at: Path) -> Event:
    hits = _packed(_some_hits(read_csv(hits_at, _ACTS_HITS)))
    particles = _packed(read_csv(particles_at, _ACTS_PARTICLES))
    _hits_once(hits)
    _agree(hits, particles)
    of_particle = hits.frame.particle_id != 0
    made = particles.frame
    made = made[(made.q != 0) | made.particle_id.isin(hits.frame.particle_id)]
    first = (made.particle_id_gen == 0) & (made.particle_id_subpart == 0)
    return Event.of(
        name,
        hits.frame.rename(columns={"tx": "x", "ty": "y", "tz": "z"}).assign(
            hit_id=np.arange(1, len(hits.frame) + 1),
            weight=of_particle.astype("float32"),
            **geometry_columns(hits.frame.geometry_id.to_numpy()),
        ),
        made.assign(primary=first),
    )


def _some_hits(hits: Table) -> Table:
    if hits.frame.empty:
        raise InputError(f"{hits.path}: empty: a header but no hits; remove the event's files")
    return hits


def _agree(truth: Table, particles: Table) -> None:
    """Particles once each, none called 0, and hits only of these or of none."""
    particles.require_within("particle_id", 1, np.iinfo(np.int64).max)  # 0 is kept for noise
    particles.require_unique(["particle_id"], "particle")
    known = np.append(particles.frame.particle_id, 0)
    truth.require_known("particle_id", known, f"is no particle of {particles.path.name}, nor 0")


def _packed(table: Table) -> Table:
    for name, (bits, _) in _BARCODE.items():
        table.require_within(f"particle_id_{name}", 0, (1 << bits) - 1)
    return replace(table, frame=table.frame.assign(particle_id=pack_barcode(table.frame)))


def _hits_once(hits: Table) -> None:
    """No two hits of one particle with the same index along it; noise has none to compare."""
    counted = (hits.frame.particle_id != 0) & (hits.frame["index"] >= 0)
    twice = hits.frame.duplicated(["particle_id", "index"]) & counted
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise hits.wrong(row, "index", "this particle has a hit of this index already")
