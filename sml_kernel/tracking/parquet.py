"""Events from parquet files in ColliderML's schema: one row an event, a list in every column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sml_kernel.tracking.events import Event, InputError
from sml_kernel.tracking.tables import Table, fits, misplaced

_HITS = {
    "x": "float32",
    "y": "float32",
    "z": "float32",
    "volume_id": "int32",
    "layer_id": "int32",
    "surface_id": "int64",
    "particle_id": "uint64",
}
_PARTICLES = {
    "particle_id": "uint64",
    "pdg_id": "int32",
    **dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz"), "float32"),
    "charge": "int32",
    "primary": "bool",
}
#: ACTS writes the largest unsigned number for a hit that belongs to no particle.
_NO_PARTICLE = np.iinfo(np.uint64).max


@dataclass(frozen=True)
class _File:
    path: Path
    content: pq.ParquetFile
    columns: dict[str, str]


def read_parquet(path: Path, particles: Path | None, positions: str) -> Iterator[Event]:
    """Open and check the file(s) now, and iterate over the events: see `read_colliderml`."""
    prefix = "true_" if positions == "true" else ""
    names = {(prefix + name if name in "xyz" else name): dtype for name, dtype in _HITS.items()}
    hits = _open(path, names)
    particles = particles or _beside(path)
    return _events(hits, None if particles is None else _open(particles, _PARTICLES))


def _events(hits: _File, particles: _File | None) -> Iterator[Event]:
    seen: set[int] = set()
    others = _rows(particles) if particles else None
    for row, (event_id, table) in enumerate(_rows(hits)):
        if event_id in seen:
            raise misplaced(hits.path, f"row {row}", "event_id", f"{event_id} comes twice")
        made = None
        if particles and others:
            other_id, made = next(others, (None, None))
            if other_id != event_id:
                what = f"event {other_id} stands where {hits.path.name} has event {event_id}"
                raise misplaced(particles.path, f"row {row}", "event_id", what)
        seen.add(event_id)
        yield _event(event_id, table, made)


def _event(event_id: int, hits: Table, particles: Table | None) -> Event:
    frame = hits.frame.rename(columns=lambda name: name.removeprefix("true_"))
    frame = frame.rename(columns={"surface_id": "module_id"})
    noise = (frame.particle_id == _NO_PARTICLE).to_numpy()
    ids = frame.particle_id.where(~noise, 0)
    if particles is None:
        _require_int64(hits, ids)
        noise = noise | (ids == 0).to_numpy()
        made = _unknown(ids[~noise])
    else:
        particles.require_unique(["particle_id"], "particle")
        listed = particles.frame.particle_id
        _require_int64(particles, listed)
        raised = int((listed == 0).any())
        noise = noise | ((ids == 0).to_numpy() & (raised == 0))
        strange = ~ids.isin(listed).to_numpy() & ~noise
        if strange.any():
            row = int(strange.argmax())
            what = f"{ids.iloc[row]} is no particle of {particles.path.name}"
            raise hits.wrong(row, "particle_id", what)
        ids = ids + np.uint64(raised)
        renamed = {"pdg_id": "particle_type", "charge": "q"}
        made = particles.frame.rename(columns=renamed)
        made["particle_id"] = listed + np.uint64(raised)
        made = made[(made.q != 0) | made.particle_id.isin(ids[~noise])]
    return Event.of(
        f"colliderml {event_id}",
        frame.assign(
            hit_id=np.arange(1, len(frame) + 1),
            particle_id=ids.where(~noise, 0),
            weight=(~noise).astype("float32"),
        ),
        made,
    )


def _unknown(ids: pd.Series) -> pd.DataFrame:
    """Particles of which only the hits are known."""
    unknown = dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz"), np.nan)
    made = pd.DataFrame({"particle_id": np.unique(ids)})
    return made.assign(particle_type=0, q=0, primary=False, **unknown)


def _require_int64(table: Table, ids: pd.Series) -> None:
    large = (ids >= np.uint64(2**63 - 1)).to_numpy()
    if large.any():
        row = int(large.argmax())
        raise table.wrong(row, "particle_id", f"{ids.iloc[row]} does not fit int64")


def _beside(path: Path) -> Path | None:
    """Where the particles of a file of hits lie, by the names of the data set and of ACTS."""
    swap = ("tracker_hits", "particles")
    name, folder = path.name.replace(*swap), path.parent.name.replace(*swap)
    for found in (path.with_name(name), path.parent.with_name(folder or ".") / name):
        if found != path and found.is_file():
            return found
    return None


def _open(path: Path, columns: dict[str, str]) -> _File:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no sound parquet file, or cut short ({error})") from None
    schema = file.schema_arrow
    for name in ("event_id", *columns):
        if name not in schema.names:
            have = ", ".join(schema.names)
            raise misplaced(path, "schema", name, f"the column is missing; the file has: {have}")
    for name, dtype in columns.items():
        found = schema.field(name).type
        if not (pa.types.is_list(found) or pa.types.is_large_list(found)) or not _is_kind(
            found.value_type, dtype
        ):
            raise misplaced(path, "schema", name, f"not a list of {dtype} but {found}")
    if not pa.types.is_integer(schema.field("event_id").type):
        raise misplaced(path, "schema", "event_id", f"{schema.field('event_id').type}, no integer")
    if file.metadata.num_rows == 0:
        raise InputError(f"{path}: empty: no row, so no event")
    return _File(path, file, columns)


def _is_kind(found: pa.DataType, dtype: str) -> bool:
    if dtype == "bool":
        return pa.types.is_boolean(found)
    return pa.types.is_integer(found) or pa.types.is_floating(found)


def _rows(file: _File) -> Iterator[tuple[int, Table]]:
    """(event_id, table) for each row, one in memory at a time."""
    path, row = file.path, 0
    try:
        for batch in file.content.iter_batches(batch_size=1, columns=["event_id", *file.columns]):
            event_id = batch.column("event_id")[0].as_py()
            if event_id is None:
                raise misplaced(path, f"row {row}", "event_id", "the value is missing")
            yield event_id, _table(path, row, event_id, batch, file.columns)
            row += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}, row {row}: damaged or cut short ({error})") from None


def _table(
    path: Path, row: int, event_id: int, batch: pa.RecordBatch, columns: dict[str, str]
) -> Table:
    place = f"row {row} (event {event_id})"
    arrays = {}
    length = None
    for name, dtype in columns.items():
        values = batch.column(name)[0].values
        if values is None:
            raise misplaced(path, place, name, "the list is missing")
        length = len(values) if length is None else length
        if len(values) != length:
            first = next(iter(columns))
            what = f"the list has {len(values)} values, that of {first!r} {length}"
            raise misplaced(path, place, name, what)
        arrays[name] = _array(path, f"{place}, element", name, values, dtype)
    if not length and "x" in [name.removeprefix("true_") for name in columns]:
        raise InputError(f"{path}, {place}: empty: an event without hits")
    return Table(path, pd.DataFrame(arrays), f"{place}, element", first=0)


def _array(path: Path, place: str, name: str, values: pa.Array, dtype: str) -> np.ndarray:
    if values.null_count:
        element = int(np.asarray(values.is_null()).argmax())
        raise misplaced(path, f"{place} {element}", name, "the value is missing")
    array = values.to_numpy(zero_copy_only=False)
    if dtype != "bool" and not fits(array, dtype):
        element = next(i for i, value in enumerate(array) if not fits(array[i : i + 1], dtype))
        advice = ""
        if name in ("x", "y", "z") and np.isnan(array).all():
            advice = "; no hit is measured here: positions='true' reads the simulated ones"
        what = f"{array[element]} is not a finite {dtype}{advice}"
        raise misplaced(path, f"{place} {element}", name, what)
    return array.astype(dtype)
