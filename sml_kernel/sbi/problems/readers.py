"""Problems from CSV, parquet and ROOT files; complaints name the file, the row and the column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sml_kernel.sbi.problems.columns import PLACES, Layout, unfit
from sml_kernel.sbi.problems.csv_files import read_csv
from sml_kernel.sbi.problems.origins import InputError, Origin
from sml_kernel.sbi.problems.parquet_files import read_parquet
from sml_kernel.sbi.problems.problem import Problem
from sml_kernel.sbi.problems.root_files import read_root

_READERS = {".csv": read_csv, ".parquet": read_parquet, ".root": read_root}

Paths = str | Path | Sequence[str | Path]


def read_problem(
    files: Paths | Mapping[str, Paths],
    *,
    weight: str | None = "weight",
    label: str | None = None,
    event: str | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    tree: str | None = None,
) -> Problem:
    """Read weighted events from ``*.csv``, ``*.parquet`` and ``*.root``, mixed as wanted.

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
    tree
        Name of the tree in ROOT files, with its directory if it is in one; None takes the only
        one. Its branches are the columns and its entries, counted from 0, the rows.

    Returns
    -------
    Problem
        Features are rounded to float32, weights kept as float64.

    Raises
    ------
    InputError
        A file is missing, damaged, of another kind or without events; a ROOT file has no such
        tree, or several and none was named, or a branch with several values an event; files
        differ in their features; a column is missing; a value is missing, not a number or not
        finite; or what `Problem.of` raises.
    TypeError
        Both a mapping and `label` are given, or neither.
    """
    if isinstance(files, Mapping) == (label is not None):
        raise TypeError("give the classes either as {class: files} or in a column: label=NAME")
    sources = _sources(files)
    layout = Layout(weight, label, event, None if features is None else tuple(features), tree)
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


def _read(path: Path, layout: Layout) -> pa.Table:
    """The columns of a file that are wanted, numbers as float64, with every value there."""
    if path.suffix not in _READERS:
        raise InputError(f"{path} is none of {', '.join(_READERS)}: convert it to one of them")
    try:
        table = _READERS[path.suffix](path, layout)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check its name and folder") from None
    if not len(table):
        raise InputError(f"{path} has no events; leave it out or make it again")
    return table


def _joined(tables: Sequence[pa.Table], name: str) -> np.ndarray:
    return np.concatenate([table[name].to_numpy() for table in tables])


def _require_same(path: Path, found: Sequence[str], names: Sequence[str], first: Path) -> None:
    for name in sorted(set(names) ^ set(found)):
        what = f"no feature of {first}" if name in found else f"missing, but a feature of {first}"
        raise unfit(path, name, f"{what}; make the files alike or name the features: features=[…]")


def _origin(paths: Sequence[Path], tables: Sequence[pa.Table], layout: Layout) -> Origin:
    sizes = [len(table) for table in tables]
    return Origin(
        files=tuple(str(path) for path in paths),
        starts=tuple(int(start) for start in np.cumsum([0, *sizes[:-1]])),
        place=tuple(PLACES[path.suffix][0] for path in paths),
        first=tuple(PLACES[path.suffix][1] for path in paths),
        label=layout.label or "class",
        weight=layout.weight or "weight",
        event=layout.event or "event",
    )
