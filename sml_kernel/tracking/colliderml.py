"""Events of the ColliderML data set, which are of the Open Data Detector in full simulation.

Two forms: parquet with one row an event and a list in every column, as the data set is released
and as ACTS' ``ParquetWriter`` writes it; and the JSON of its event display.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sml_kernel.tracking.events import Event, InputError
from sml_kernel.tracking.parquet import read_parquet
from sml_kernel.tracking.tables import Table, column_of, misplaced

_JSON_HITS = {
    "HIT_ID": "int64",
    "x": "float32",
    "y": "float32",
    "z": "float32",
    "pT": "float32",
    "pdg_id": "int32",
    "particle_id": "int64",
    "volume_id": "int32",
}
_HITS_AT = "all_tracker_hits"
#: Charge of what leaves hits in a tracker, in units of e; antiparticles have the opposite one.
_CHARGES = {11: -1, 13: -1, 15: -1, 211: 1, 321: 1, 2212: 1}
_CHARGES |= {3112: -1, 3222: 1, 3312: -1, 3334: -1, 411: 1, 431: 1, 521: 1}


def read_colliderml(
    path: str | os.PathLike[str],
    *,
    particles: str | os.PathLike[str] | None = None,
    positions: str = "measured",
) -> Event | Iterator[Event]:
    """The event of a display JSON, or an iterator over the events of a parquet file.

    Parameters
    ----------
    path
        ``*.json``, ``*.json.gz``, or the ``tracker_hits`` parquet file.
    particles
        Parquet only: the particles of the same events. None: the file that is named like `path`
        with ``particles`` for ``tracker_hits``, beside it or in a folder of that name, if it is
        there. Without it each particle that has hits is listed with unknown (nan) vertex and
        momentum, ``particle_type`` and ``q`` 0, not ``primary``.
    positions
        Parquet only: ``"measured"`` takes ``x, y, z``; ``"true"`` takes ``true_x, true_y, true_z``,
        for simulations that were written without digitisation.

    Returns
    -------
    Event or iterator of Event
        ``hit_id`` counts from 1 in parquet and is the file's ``HIT_ID`` in JSON. ACTS numbers
        particles from 0: where an event's particles have a 0, all their ids are raised by one, so
        that 0 stays noise. ACTS' mark for "no particle" (2⁶⁴ − 1) becomes 0.

    Raises
    ------
    InputError
        At once for a missing, unreadable or truncated file or a missing or mistyped column; while
        iterating for lists of different length, missing or nan values, particles that are not
        there, rows of hits and particles of different events.

    Notes
    -----
    The display JSON says less than an event has. Its ``layer_id`` and ``module_id`` are 0. Of a
    particle it gives pT and species: the direction is estimated by the straight line from the
    event's vertex to the particle's nearest hit (off by the bending up to there, about
    3e-4 · B/T · r/mm / (2 · pT/GeV) rad), the event's vertex stands for each particle's, all count
    as primary, and particles without hits are not listed.
    """
    path = Path(path)
    if positions not in ("measured", "true"):
        raise ValueError(f"positions are 'measured' or 'true', not {positions!r}")
    if path.name.endswith((".json", ".json.gz")):
        return _display_event(path)
    if path.suffix == ".parquet":
        return read_parquet(path, None if particles is None else Path(particles), positions)
    raise InputError(f"{path}: neither .json, .json.gz nor .parquet")


def _display_event(path: Path) -> Event:
    content = _json(path)
    table = _entries(path, content.get(_HITS_AT), _HITS_AT, _JSON_HITS)
    table.require_unique(["HIT_ID"], "hit")
    _check_tracks(path, content.get("tracks", []), table.frame)
    hits = table.frame.rename(columns={"HIT_ID": "hit_id"})
    vertex = _vertex(path, content)
    name = f"colliderml {content.get('metadata', {}).get('event_id', path.name)}"
    of_particle = (hits.particle_id != 0).astype("float32")
    return Event.of(
        name,
        hits.assign(layer_id=0, module_id=0, weight=of_particle),
        _display_particles(table, vertex),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        content = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: no sound gzip file ({error}); copy it again") from None
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: not JSON, or cut short ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an event: a {type(content).__name__} instead of an object")
    return content


def _entries(path: Path, entries: Any, where: str, columns: dict[str, str]) -> Table:
    """The table that a list of JSON objects makes; rows are entries counted from 0."""
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}, column {where!r}: missing, empty or no list of hits")
    for row, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}, {where} entry {row}: not an object")
    place = f"{where} entry"
    values = {
        name: column_of((entry.get(name) for entry in entries), dtype, path, place, name, first=0)
        for name, dtype in columns.items()
    }
    table = Table(path, pd.DataFrame(values), place, first=0)
    negative = (table.frame.particle_id < 0).to_numpy()
    if negative.any():
        raise table.wrong(int(negative.argmax()), "particle_id", "below 0")
    return table


def _check_tracks(path: Path, tracks: Any, hits: pd.DataFrame) -> None:
    """The display's own truth tracks must be of hits that are there, and of the same particle."""
    owner = dict(zip(hits.HIT_ID, hits.particle_id, strict=True))
    for row, track in enumerate(tracks):
        place = f"tracks entry {row}"
        for name in ("particle_id", "hit_ids"):
            if name not in track:
                raise misplaced(path, place, name, "the value is missing")
        for hit in track["hit_ids"]:
            if hit not in owner:
                raise misplaced(path, place, "hit_ids", f"hit {hit} is not in {_HITS_AT}")
            if owner[hit] != track["particle_id"]:
                what = f"hit {hit} belongs to particle {owner[hit]}, not {track['particle_id']}"
                raise misplaced(path, place, "hit_ids", what)


def _vertex(path: Path, content: dict[str, Any]) -> np.ndarray:
    vertex = content.get("vertex")
    if not isinstance(vertex, list) or len(vertex) != 3:
        raise InputError(f"{path}, column 'vertex': not three lengths in mm but {vertex!r}")
    return column_of(vertex, "float32", path, "vertex entry", "vertex", first=0)


def _display_particles(table: Table, vertex: np.ndarray) -> pd.DataFrame:
    hits = table.frame[table.frame.particle_id != 0]
    offset = hits[["x", "y", "z"]].to_numpy() - vertex
    distance = np.linalg.norm(offset, axis=1)
    order = np.argsort(distance, kind="stable")
    made = hits.iloc[order].assign(dx=offset[order, 0], dy=offset[order, 1], dz=offset[order, 2])
    for column in ("pT", "pdg_id"):
        kinds = made.groupby("particle_id")[column].nunique()
        if (kinds > 1).any():
            particle = kinds.index[kinds > 1][0]
            row = int((table.frame.particle_id == particle).to_numpy().argmax())
            raise table.wrong(row, column, f"particle {particle} has {kinds.max()} values of it")
    made = made.drop_duplicates("particle_id").sort_values("particle_id")
    scale = made.pT / np.hypot(made.dx, made.dy)
    charge = made.pdg_id.abs().map(_CHARGES).fillna(0) * np.sign(made.pdg_id)
    return pd.DataFrame(
        {
            "particle_id": made.particle_id,
            "particle_type": made.pdg_id,
            **dict(zip(("vx", "vy", "vz"), vertex, strict=True)),
            **{f"p{axis}": made[f"d{axis}"] * scale for axis in "xyz"},
            "q": charge,
            "primary": True,
        }
    )
