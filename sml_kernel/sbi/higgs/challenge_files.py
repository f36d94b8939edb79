"""Files of the FAIR Universe HiggsML uncertainty challenge, arXiv:2410.02867.

They come in two layouts. The public release (doi:10.5281/zenodo.15131565) is one file of 220
million events, with 28 features, ``weights``, ``labels`` (1 for signal) and ``detailed_labels``::

    FAIR_Universe_HiggsML_data.parquet
    FAIR_Universe_HiggsML_data_metadata.json    total_rows and more, in a JSON object

In the competition the columns stood in files of their own, a line an event::

    train/data/data.parquet                     (or data.csv) the features
    train/weights/data.weights
    train/labels/data.labels
    train/detailed_labels/data.detailed_labels
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sml_kernel.sbi.higgs.features import DERIVED, PRIMARY, derived
from sml_kernel.sbi.problems.columns import Layout, misplaced, typed, unfit
from sml_kernel.sbi.problems.csv_files import read_csv
from sml_kernel.sbi.problems.origins import InputError, Origin
from sml_kernel.sbi.problems.problem import Problem

_CLASSES = ("htautau", "ztautau", "ttbar", "diboson")
_RELEASE = "FAIR_Universe_HiggsML_data.parquet"
_KINDS = {"weights": "double", "labels": "double", "detailed_labels": "string"}


def read_fair_universe(folder: str | os.PathLike, events: int | None = None) -> Problem:
    """Read the challenge's events.

    Parameters
    ----------
    folder
        That holds one of the two layouts, in itself or in ``input_data``; or the parquet file.
    events
        Take the first so many, and scale the weights so that they stand for all, which is right
        where the order is random. None takes all, which for the release needs a large machine.

    Returns
    -------
    Problem
        Classes ``htautau``, ``ztautau``, ``ttbar`` and ``diboson``, as far as there are events.
        Derived features are computed if the file has none. Events are numbered by their rows.
        The challenge's own selection is tighter than its files: ``PRI_had_pt`` above 26 GeV.

    Raises
    ------
    InputError
        A file is missing, damaged or cut short; a column is missing or of another type; columns
        differ in length; the two labels of an event disagree; or what `Problem.of` raises.
    """
    if events is not None and events < 1:
        raise InputError(f"events is {events}: give 1 or more, or None for all")
    path = _found(Path(folder))
    if path.name == "data.parquet" or path.suffix == ".csv":
        table, rows = _competition(path)
        table = table if events is None else table[:events]
    else:
        table, rows = _release(path, events)
    _check_labels(path, table)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    if DERIVED[0] not in columns:
        columns |= derived({name: columns[name] for name in PRIMARY})
    labels = columns["detailed_labels"].astype(str)
    return Problem.of(
        np.stack([columns[name] for name in (*PRIMARY, *DERIVED)], axis=1),
        labels,
        columns["weights"] * (rows / len(table)),
        classes=[name for name in _CLASSES if name in labels],
        feature_names=(*PRIMARY, *DERIVED),
        origin=Origin((str(path),), label="detailed_labels", weight="weights"),
    )


def _found(folder: Path) -> Path:
    """The file with the features."""
    inside = (_RELEASE, "train/data/data.parquet", "train/data/data.csv")
    places = [base / name for base in (folder, folder / "input_data") for name in inside]
    for path in (folder, *places):
        if path.is_file() and path.suffix in (".parquet", ".csv"):
            return path
    raise InputError(f"{folder} has none of {', '.join(inside)}; name the folder that has")


def _release(path: Path, events: int | None) -> tuple[pa.Table, int]:
    """The rows that are wanted, and the number of all."""
    about = path.with_name(f"{path.stem}_metadata.json")
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            header = file.schema_arrow.names
            names = _features(path, header, ("weights", "labels", "detailed_labels"))
            batches, taken = [], 0
            for batch in file.iter_batches(columns=[*names, *_KINDS]):
                batches.append(batch.slice(0, None if events is None else events - taken))
                taken += len(batches[-1])
                if taken == events:
                    break
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is no sound parquet file ({error}); copy it again") from error
    if about.exists():
        _check_rows(about, rows)
    if not rows:
        raise InputError(f"{path} has no events; copy it again")
    table = pa.Table.from_batches(batches)
    kinds = dict.fromkeys(names, "double") | _KINDS
    return pa.table({n: typed(path, n, table[n], kind) for n, kind in kinds.items()}), rows


def _check_rows(about: Path, rows: int) -> None:
    try:
        promised = json.loads(about.read_text())["total_rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{about} is no JSON object with total_rows ({error}); copy it again"
        ) from error
    if promised != rows:
        raise InputError(
            f"{about} promises {promised} events, and there are {rows}: copy them again"
        )


def _competition(path: Path) -> tuple[pa.Table, int]:
    """All rows, from files of one column each."""
    if path.suffix == ".csv":
        table = read_csv(path, Layout(None, None, None, None))
    else:
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is no sound parquet file ({error}); copy it again") from error
    names = _features(path, table.column_names, ())
    columns = {name: typed(path, name, table[name], "double") for name in names}
    for name, kind in _KINDS.items():
        columns[name] = _lines(path.parents[1] / name / f"data.{name}", kind, len(table))
    if not len(table):
        raise InputError(f"{path} has no events; copy it again")
    return pa.table(columns), len(table)


def _lines(path: Path, kind: str, rows: int) -> pa.Array:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again") from error
    if len(lines) != rows:
        raise InputError(f"{path} has {len(lines)} lines for {rows} events; copy both again")
    if kind == "string":
        return pa.array(lines)
    for number, line in enumerate(lines, start=1):
        try:
            float(line)
        except ValueError:
            raise InputError(f"{path}, line {number}: {line[:40]!r} is not a number") from None
    return pa.array(np.array(lines, float))


def _features(path: Path, header: list[str], others: tuple[str, ...]) -> tuple[str, ...]:
    """Names of those in a file: all 28, or the primary ones alone."""
    wanted = (*PRIMARY, *DERIVED) if set(header) & set(DERIVED) else PRIMARY
    for name in (*wanted, *others):
        if header.count(name) != 1:
            raise unfit(path, name, f"the column is missing; there are {', '.join(header)}")
    return wanted


def _check_labels(path: Path, table: pa.Table) -> None:
    """Signal is htautau, and the rest is not."""
    names, signal = table["detailed_labels"].to_numpy(), table["labels"].to_numpy()
    wrong = (names == _CLASSES[0]) != (signal == 1)
    wrong |= ~np.isin(signal, (0, 1)) | ~np.isin(names.astype(str), _CLASSES)
    if wrong.any():
        row = int(wrong.argmax())
        what = f"{names[row]!r} with labels {signal[row]:g}: 1 goes with htautau, 0 with the others"
        if names[row] not in _CLASSES:
            what = f"{names[row]!r} is none of {', '.join(_CLASSES)}"
        raise misplaced(path, row, "detailed_labels", what)
