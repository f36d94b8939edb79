"""Tables from outside, checked whole: every complaint names the file, the row and the column.

Files are parsed the fast way first. Only when something about a file is wrong (or odd: a charge
written ``-1.0``) is it gone through again value by value, to find out what and where.
"""

from __future__ import annotations

import gzip
import io
import textwrap
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from sml_kernel.tracking.events import InputError


@dataclass(frozen=True)
class Table:
    """A table and where it came from.

    Attributes
    ----------
    path
        The file.
    frame
        The values, with rows in the order of the file.
    place, first
        What a row is called in the file, and the number of the first: by default ``line`` and 2,
        for below the header of a CSV file.
    """

    path: Path
    frame: pd.DataFrame
    place: str = "line"
    first: int = 2

    def wrong(self, row: int, column: str, what: str) -> InputError:
        """The error to raise for the value in row `row` (counted from 0) of `column`."""
        return misplaced(self.path, f"{self.place} {self.first + int(row)}", column, what)

    def require_unique(self, columns: list[str], what: str) -> None:
        """Raise InputError at the second row that has the same values in `columns`."""
        repeated = self.frame.duplicated(columns).to_numpy()
        if repeated.any():
            row = int(repeated.argmax())
            same = (self.frame[columns] == self.frame[columns].iloc[row]).all(axis=1).to_numpy()
            earlier = f"{self.place} {self.first + int(same.argmax())}"
            raise self.wrong(row, columns[-1], f"this {what} stands in {earlier} already")

    def require_known(self, column: str, known: np.ndarray | pd.Series, what: str) -> None:
        """Raise InputError at the first row whose value in `column` is not among `known`."""
        strange = ~self.frame[column].isin(known).to_numpy()
        if strange.any():
            row = int(strange.argmax())
            raise self.wrong(row, column, f"{self.frame[column].iloc[row]} {what}")

    def require_within(self, column: str, low: int, high: int) -> None:
        """Raise InputError at the first row whose value in `column` is not in `low` … `high`."""
        outside = ~self.frame[column].between(low, high).to_numpy()
        if outside.any():
            row = int(outside.argmax())
            found = self.frame[column].iloc[row]
            raise self.wrong(row, column, f"{found} is not within {low} … {high}")


def misplaced(path: Path, place: str, column: str, what: str) -> InputError:
    """The error for one value: ``FILE, line 7, column 'x': what is wrong``."""
    return InputError(f"{path}, {place}, column {column!r}: {what}")


def read_csv(
    path: Path, columns: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> Table:
    """Read the named columns of a CSV file, plain or gzipped by its name.

    Parameters
    ----------
    path
        ``*.csv`` or ``*.csv.gz``, with a header line.
    columns
        Name → dtype of the columns that must be there; others are passed over.
    optional
        The same for columns that may be missing.

    Raises
    ------
    InputError
        The file is missing, empty, not gzip or cut short; a column is missing or doubled; a line
        has too many or too few fields; a value is missing, not a number, not finite, not whole
        or too large for its dtype.
    """
    data = _content(path)
    header = data.split(b"\n", 1)[0].decode(errors="replace").rstrip("\r").split(",")
    dtypes = {name: dtype for name, dtype in (optional or {}).items() if name in header}
    dtypes = {**columns, **dtypes}
    _check_header(path, header, columns)
    _check_fields(path, data, len(header))
    frame = _parse(data, dtypes)
    return Table(path, _parse_by_value(path, data, dtypes) if frame is None else frame)


def column_of(
    values: Iterable[Any], dtype: str, path: Path, place: str, name: str, first: int
) -> np.ndarray:
    """An array of `dtype`, shape [N], from texts or JSON values, each of them checked.

    Raises
    ------
    InputError
        A value is missing, not a number, not finite, not whole or too large for the dtype; its
        place is given as `place` and its number counted from `first`.
    """
    numbers = []
    for row, value in enumerate(values, start=first):
        number = _number(value, np.dtype(dtype))
        if isinstance(number, str):
            raise misplaced(path, f"{place} {row}", name, number)
        numbers.append(number)
    return np.array(numbers, dtype=dtype)


def fits(values: np.ndarray, dtype: str) -> bool:
    """Whether all `values` are finite, and neither lose their fraction nor overflow as `dtype`."""
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(values.astype(dtype)).all())
    if not len(values):
        return True
    whole = values.dtype.kind in "iu" or bool((np.isfinite(values) & (values % 1 == 0)).all())
    limits = np.iinfo(dtype)
    return whole and bool(limits.min <= values.min() and values.max() <= limits.max)


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz" and data:
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except gzip.BadGzipFile as error:
        raise InputError(f"{path}: not a sound gzip file ({error}); copy it again") from None
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: cut short or damaged gzip ({error}); copy it again") from None
    if not data.strip():
        raise InputError(f"{path}: the file is empty; copy it again")
    return data.rstrip(b"\r\n")


def _check_header(path: Path, header: list[str], columns: Mapping[str, str]) -> None:
    for name in columns:
        if header.count(name) != 1:
            what = "twice" if name in header else "missing"
            have = textwrap.shorten(", ".join(header), 200)
            raise misplaced(path, "line 1", name, f"the column is {what}; the header has: {have}")


def _check_fields(path: Path, data: bytes, n_fields: int) -> None:
    """Each line must have as many commas as the header: a ragged one shifts what follows."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.append(np.flatnonzero(characters == ord("\n")), len(data))
    commas = np.flatnonzero(characters == ord(","))
    fields = np.diff(np.searchsorted(commas, ends), prepend=0) + 1
    ragged = fields != n_fields
    if ragged.any():
        line = int(ragged.argmax())
        what = f"{fields[line]} fields instead of {n_fields}: the line is cut short or runs over"
        header = data.split(b"\n", 1)[0].decode(errors="replace").rstrip("\r").split(",")
        column = header[min(int(fields[line]), n_fields - 1)]
        raise misplaced(path, f"line {line + 1}", column, what)


def _parse(data: bytes, dtypes: Mapping[str, str]) -> pd.DataFrame | None:
    """The table, or None if anything in it is not as it should be.

    By Arrow, which is strict: pandas would read ``True`` as 1 and round an identifier's fraction.
    """
    wide = {"f": pa.float64(), "i": pa.int64(), "u": pa.uint64()}
    types = {name: wide[np.dtype(dtype).kind] for name, dtype in dtypes.items()}
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[]
            ),
        )
    except pa.ArrowInvalid:
        return None
    columns = {name: table[name].to_numpy() for name in types}
    if not all(fits(columns[name], dtype) for name, dtype in dtypes.items()):
        return None
    return pd.DataFrame({name: columns[name].astype(dtype) for name, dtype in dtypes.items()})


def _parse_by_value(path: Path, data: bytes, dtypes: Mapping[str, str]) -> pd.DataFrame:
    texts = pd.read_csv(
        io.BytesIO(data),
        usecols=list(dtypes),
        dtype=str,
        encoding_errors="replace",
        quoting=3,
        skip_blank_lines=False,
        keep_default_na=False,
    )
    return pd.DataFrame(
        {
            name: column_of(texts[name], dtype, path, "line", name, first=2)
            for name, dtype in dtypes.items()
        }
    )


def _number(value: Any, dtype: np.dtype) -> int | float | str:
    """The number that `value` stands for, or what is wrong with it."""
    if value is None or value == "":
        return "the value is missing"
    shown = repr(value if len(str(value)) <= 40 else str(value)[:37] + "...")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or "_" in str(value):
        return f"{shown} is not a number"
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return f"{shown} is not a number"
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return number if np.isfinite(dtype.type(number)) else f"{shown} is not finite"
    if not np.isfinite(number):
        return f"{shown} is not finite"
    if abs(number) > 2**65:
        return f"{shown} does not fit {dtype.name}"
    exact = Decimal(value)  # not `number`, which has 53 bits
    limits = np.iinfo(dtype)
    if exact % 1 != 0:
        return f"{shown} is not a whole number"
    return int(exact) if limits.min <= exact <= limits.max else f"{shown} does not fit {dtype.name}"
