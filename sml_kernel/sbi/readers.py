"""Problems from CSV and parquet files; every complaint names the file, the row and the column."""

from __future__ import annotations

import csv as lines_of
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from sml_kernel.sbi.origins import InputError, Origin
from sml_kernel.sbi.problems import Problem

#: Suffix → what a row is called, and the number of the first: in CSV the header is line 1.
_PLACES = {".csv": ("line", 2), ".parquet": ("row", 0)}

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class _Layout:
    """Which column is what; those that are neither are features unless these are named."""

    weight: str | None
    label: str | None
    event: str | None
    features: tuple[str, ...] | None

    def kinds(self) -> dict[str, str]:
        """Name → type of the columns that are not features."""
        wanted = {self.weight: "double", self.label: "string", self.event: "int64"}
        return {name: kind for name, kind in wanted.items() if name is not None}

    def features_in(self, path: Path, header: Sequence[str]) -> tuple[str, ...]:
        """The features of a file with this header, or the error for a column that is not there."""
        others = self.kinds()
        features = self.features or tuple(name for name in header if name not in others)
        for name in (*others, *features):
            if header.count(name) != 1:
                what = "stands twice" if name in header else "is missing"
                raise _unfit(path, name, f"the column {what}; there are {', '.join(header)}")
        if self.features is None and not features:
            raise InputError(f"{path} has no column that is a feature; add one")
        return features


def read_problem(
    files: Paths | Mapping[str, Paths],
    *,
    weight: str | None = "weight",
    label: str | None = None,
    event: str | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Problem:
    """Read weighted events from ``*.csv`` and ``*.parquet``.

    Parameters
    ----------
    files
        Class → its file or files, as in ``{"signal": "s.parquet", "signal@jes=+1": [...]}``; or,
        with `label`, a file or files of events of any class.
    weight
        The column of the weights; None gives each event 1.
    label
        The column with the class of each event, as text.
    event
        The column that numbers the simulated events, whole numbers, so that variations of one
        event are known to be that; None numbers the rows of all files.
    features
        The columns that are features; None takes all others of the first file, and then each file
        must have the same, in any order.
    classes
        Names in the order wanted, all of which must have events; None takes those of `files` in
        their order, or those found in the column `label`, sorted.

    Returns
    -------
    Problem
        Features are rounded to float32, weights kept as float64.

    Raises
    ------
    InputError
        A file is missing, damaged, of another kind or without events; files differ in their
        features; a column is missing; a value is missing, not a number or not finite; or what
        `Problem.of` raises.
    TypeError
        Both a mapping and `label` are given, or neither.
    """
    if isinstance(files, Mapping) == (label is not None):
        raise TypeError("give the classes either as {class: files} or in a column: label=NAME")
    sources = _sources(files)
    layout = _Layout(weight, label, event, None if features is None else tuple(features))
    tables = [_read(path, layout) for _, path in sources]
    names = layout.features_in(sources[0][1], tables[0].column_names)
    for (_, path), table in zip(sources, tables, strict=True):
        _require_same(path, layout.features_in(path, table.column_names), names, sources[0][1])
    if label is None:
        labels = np.repeat([name for name, _ in sources], [len(table) for table in tables])
        classes = classes or list(dict.fromkeys(name for name, _ in sources))
    else:
        labels = _joined(tables, label)
    return Problem.of(
        np.stack([_joined(tables, name) for name in names], axis=1),
        labels,
        None if weight is None else _joined(tables, weight),
        classes=classes,
        feature_names=names,
        event_ids=None if event is None else _joined(tables, event),
        origin=_origin([path for _, path in sources], tables, layout),
    )


def _sources(files: Paths | Mapping[str, Paths]) -> list[tuple[str, Path]]:
    """The class (empty where a column says it) and path of every file."""
    groups = files if isinstance(files, Mapping) else {"": files}
    found = []
    for name, paths in groups.items():
        listed = [paths] if isinstance(paths, str | Path) else paths
        found += [(name, Path(path)) for path in listed]
        if not listed:
            raise InputError(f"class {name!r} has no files; name some or leave the class out")
    if not found:
        raise InputError("there are no files to read; name some")
    return found


def _read(path: Path, layout: _Layout) -> pa.Table:
    """The columns of a file that are wanted, numbers as float64, with every value there."""
    if path.suffix not in _PLACES:
        known = " nor ".join(_PLACES)
        raise InputError(f"{path} is neither {known}: convert it to one of them")
    try:
        table = (_read_csv if path.suffix == ".csv" else _read_parquet)(path, layout)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check its name and folder") from None
    if not len(table):
        raise InputError(f"{path} has no events; leave it out or make it again")
    return table


def _read_csv(path: Path, layout: _Layout) -> pa.Table:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header = next(lines_of.reader(file), [])
    if not header:
        raise InputError(f"{path} is empty; copy or make it again")
    kinds = {**dict.fromkeys(layout.features_in(path, header), "double"), **layout.kinds()}
    types = {name: pa.type_for_alias(kind) for name, kind in kinds.items()}
    try:
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[]
            ),
        )
    except pa.ArrowInvalid as error:
        raise _first_mistake(path, kinds) or InputError(
            f"{path} is no sound CSV file ({error}); make it again"
        ) from None


def _first_mistake(path: Path, kinds: Mapping[str, str]) -> InputError | None:
    """What is wrong with a CSV file, found line by line after Arrow has refused it."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = lines_of.reader(file)
        header = next(rows)
        for row, fields in enumerate(rows):
            if len(fields) != len(header):
                column = header[min(len(fields), len(header) - 1)]
                what = f"{len(fields)} fields instead of {len(header)}; make the line again"
                return _misplaced(path, row, column, what)
            for name, text in zip(header, fields, strict=True):
                what = _mistake(text, kinds.get(name, "string"))
                if what:
                    return _misplaced(path, row, name, what)
    return None


def _mistake(text: str, kind: str) -> str:
    try:
        {"double": float, "int64": int, "string": str}[kind](text)
    except ValueError:
        called = "whole number" if kind == "int64" else "number"
        what = f"{text[:40]!r} is not a {called}" if text.strip() else "the value is missing"
        return f"{what}; repair it, or leave out the event, or name the columns in features=[…]"
    return ""


def _read_parquet(path: Path, layout: _Layout) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            names = layout.features_in(path, file.schema_arrow.names)
            kinds = {**dict.fromkeys(names, "double"), **layout.kinds()}
            table = file.read(columns=list(kinds))
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is no sound parquet file ({error}); make it again") from None
    columns = [_typed(path, name, table[name], kind) for name, kind in kinds.items()]
    return pa.table(columns, names=list(kinds))


def _typed(path: Path, name: str, column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    if column.null_count:
        row = column.is_null().index(True).as_py()
        what = "the value is missing; repair it or leave out the event"
        raise _misplaced(path, row, name, what)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    fitting = {"double": _is_number, "int64": pa.types.is_integer, "string": _is_text}[kind]
    if not fitting(column.type):
        what = f"{column.type} where {kind} is needed; convert it, or name the columns that are"
        raise _unfit(path, name, f"{what} features in features=[…]")
    # Whole numbers beyond 2^53 are rounded: float32, which features become, has fewer digits.
    return column.cast(kind, safe=kind != "double")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _joined(tables: Sequence[pa.Table], name: str) -> np.ndarray:
    return np.concatenate([table[name].to_numpy() for table in tables])


def _require_same(path: Path, found: Sequence[str], names: Sequence[str], first: Path) -> None:
    for name in sorted(set(names) ^ set(found)):
        what = f"no feature of {first}" if name in found else f"missing, but a feature of {first}"
        raise _unfit(path, name, f"{what}; make the files alike or name the features: features=[…]")


def _unfit(path: Path, column: str, what: str) -> InputError:
    """The error for a whole column."""
    return InputError(f"{path}, column {column!r}: {what}")


def _misplaced(path: Path, row: int, column: str, what: str) -> InputError:
    """The error for one value, `row` counted from 0."""
    place, first = _PLACES[path.suffix]
    return Origin((str(path),), (0,), (place,), (first,)).wrong(row, column, what)


def _origin(paths: Sequence[Path], tables: Sequence[pa.Table], layout: _Layout) -> Origin:
    sizes = [len(table) for table in tables]
    return Origin(
        files=tuple(str(path) for path in paths),
        starts=tuple(int(start) for start in np.cumsum([0, *sizes[:-1]])),
        place=tuple(_PLACES[path.suffix][0] for path in paths),
        first=tuple(_PLACES[path.suffix][1] for path in paths),
        label=layout.label or "class",
        weight=layout.weight or "weight",
        event=layout.event or "event",
    )
