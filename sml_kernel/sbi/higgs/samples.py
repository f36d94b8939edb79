"""Samples of reconstructed events: made chunk by chunk, and kept in a folder if that is wanted.

A file is named by a hash of all that its events depend on: process, number, seed, the version of
Pythia, and the text of the modules that make them. It is written under another name first, so that
it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from sml_kernel.sbi.higgs import detector, generator
from sml_kernel.sbi.higgs.detector import Objects, reconstruct
from sml_kernel.sbi.higgs.features import selected
from sml_kernel.sbi.higgs.generator import COLLISIONS, PROCESSES, TAU_TO_LEPTON, Truth
from sml_kernel.sbi.problems.origins import InputError

_MAX_SEED = _MAX_ROWS = 2**30  # an event's number holds seed, process (8 of them) and row


@dataclass(frozen=True, eq=False)
class Sample:
    """Objects of the events of one process, and the number of collisions they were found in."""

    objects: Objects
    collisions: int


def sample(
    process: str, events: int, seed: int, cache: str | os.PathLike | None = None, show: bool = False
) -> Sample:
    """Collisions of a process until so many events pass the nominal preselection.

    All of the last chunk stay, also those that would pass only with nuisance parameters moved. More
    events begin with the same as fewer. That the number of collisions is found on the way moves an
    expected yield by 1/events of itself at most, far less than its statistical error.

    Raises
    ------
    InputError
        There is no such process, the number is not above zero, or the seed not in 0 … 2³⁰ − 1; a
        file in `cache` is damaged.
    """
    if process not in PROCESSES:
        raise InputError(f"there is no process {process!r}; there are {', '.join(PROCESSES)}")
    if events < 1 or not 0 <= seed < _MAX_SEED:
        raise InputError(f"{events} events, seed {seed}: give 1 or more, and 0 to {_MAX_SEED - 1}")
    generator.import_pythia()
    if cache is None:
        return _made(process, events, seed, show)
    path = Path(cache) / f"{process}-{_key(process, events, seed)}.parquet"
    if not path.exists():
        _keep(path, _made(process, events, seed, show))
    return _kept(path)


def _made(process: str, events: int, seed: int, show: bool) -> Sample:
    parts: list[Objects] = []
    codes: list[np.ndarray] = []
    generated: Counter[int] = Counter()
    passed = 0
    with tqdm(total=events, desc=process, unit="event", disable=not show) as bar:
        while passed < events:
            truth, objects = _chunk(process, seed, len(parts))
            parts.append(objects)
            codes.append(truth.code)
            generated.update(truth.generated)
            new = int(selected(objects).sum())
            passed += new
            bar.update(min(new, events - bar.n))
    whole = Objects(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Objects)))
    scale = _expected_per_collision(process, np.concatenate(codes), generated)
    return Sample(replace(whole, shares=whole.shares * scale), generated.total())


def _chunk(process: str, seed: int, number: int) -> tuple[Truth, Objects]:
    place = list(PROCESSES).index(process)
    first = number * COLLISIONS
    if first + COLLISIONS > _MAX_ROWS:
        raise InputError(f"{process} took {first} collisions: ask for fewer events a seed")
    pythia, detector = np.random.SeedSequence([seed, place, number]).spawn(2)
    truth = generator.generate(process, int(pythia.generate_state(1)[0]) % 900_000_000 + 1)
    ids = (seed * 8 + place) * _MAX_ROWS + first + np.arange(len(truth.code))
    shares = np.where(truth.from_tau, TAU_TO_LEPTON, 1.0)
    return truth, reconstruct(truth, ids, shares, np.random.default_rng(detector))


def _expected_per_collision(process: str, codes: np.ndarray, generated: Counter) -> np.ndarray:
    """[N] cross section in fb of an event's subprocesses, over the collisions of these."""
    scale = np.zeros(len(codes))
    for together, pb in PROCESSES[process].cross_sections_pb.items():
        number = sum(generated[code] for code in together)
        scale[np.isin(codes, together)] = 1000 * pb / max(number, 1)
    if not scale.all():
        raise RuntimeError(f"{process} has subprocesses {set(codes)} without a cross section")
    return scale


def _key(process: str, events: int, seed: int) -> str:
    made_by = (inspect.getsource(m) for m in (generator, detector))
    version = importlib.metadata.version("pythia8mc")
    text = json.dumps([process, events, seed, version, *made_by])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _keep(path: Path, made: Sample) -> None:
    columns: dict[str, np.ndarray] = {}
    shapes = {}
    for field in fields(Objects):
        array = getattr(made.objects, field.name)
        shapes[field.name] = array.shape[1:]
        flat = array.reshape(len(array), -1)
        columns |= {f"{field.name}.{i}": column for i, column in enumerate(flat.T)}
    about = {"collisions": str(made.collisions), "shapes": json.dumps(shapes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    pq.write_table(pa.table(columns).replace_schema_metadata(about), partial)
    partial.replace(path)


def _kept(path: Path) -> Sample:
    try:
        table = pq.read_table(path)
        about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        arrays = []
        for name, shape in json.loads(about["shapes"]).items():
            flat = [table[f"{name}.{i}"].to_numpy() for i in range(int(np.prod(shape)))]
            arrays.append(np.stack(flat, axis=1).reshape(len(table), *shape))
        return Sample(Objects(*arrays), int(about["collisions"]))
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it, it is made again") from error
