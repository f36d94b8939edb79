"""Which column of a file is what, and how the error says that one is not right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sml_kernel.sbi.problems.origins import InputError, Origin

#: Suffix → what a row is called, and the number of the first: in CSV the header is line 1.
PLACES = {".csv": ("line", 2), ".parquet": ("row", 0), ".root": ("entry", 0)}


@dataclass(frozen=True)
class Layout:
    """Which column is what; those that are neither are features unless these are named.

    `tree` is that of a ROOT file; None takes the only one.
    """

    weight: str | None
    label: str | None
    event: str | None
    features: tuple[str, ...] | None
    tree: str | None = None

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
                raise unfit(path, name, f"the column {what}; there are {', '.join(header)}")
        if self.features is None and not features:
            raise InputError(f"{path} has no column that is a feature; add one")
        return features


def typed(path: Path, name: str, column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """A column as ``double``, ``int64`` or ``string``, or the error for what does not fit."""
    if column.null_count:
        row = column.is_null().index(True).as_py()
        what = "the value is missing; repair it or leave out the event"
        raise misplaced(path, row, name, what)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    fitting = {"double": _is_number, "int64": pa.types.is_integer, "string": _is_text}[kind]
    if not fitting(column.type):
        what = f"{column.type} where {kind} is needed; convert it, or name the columns that are"
        raise unfit(path, name, f"{what} features in features=[…]")
    # Whole numbers beyond 2^53 are rounded: float32, which features become, has fewer digits.
    try:
        return column.cast(kind, safe=kind != "double")
    except pa.ArrowInvalid as error:
        raise unfit(path, name, f"{error}; number the events with less than 2^63") from None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def unfit(path: Path, column: str, what: str) -> InputError:
    """The error for a whole column."""
    return InputError(f"{path}, column {column!r}: {what}")


def misplaced(path: Path, row: int, column: str, what: str) -> InputError:
    """The error for one value, `row` counted from 0."""
    place, first = PLACES[path.suffix]
    return Origin((str(path),), (0,), (place,), (first,)).wrong(row, column, what)
