"""Rows of a run: one file a writer, one JSON object a line, whole or not there."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_OWN = ("kind", "time", "writer")


class RecordError(ValueError):
    """A record that is missing, damaged or not writable; the message names file and line."""


class Writer:
    """Appends rows to a file of its own. A context manager; safe to abandon at any moment."""

    def __init__(self, folder: Path, name: str) -> None:
        rows = Path(folder) / "rows"
        rows.mkdir(parents=True, exist_ok=True)
        self.name = name
        unique = f"{name}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = rows / f"{unique}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o644)

    def append(self, kind: str, **values: Any) -> dict[str, Any]:
        """Append one row of the given kind, and return it.

        Values are numbers, strings, booleans, None, and lists or dicts of these. JSON has no nan
        or infinity: such a value is written as null, beside ``<name>_reason`` that says which;
        inside a list or a dict, as null.

        Raises
        ------
        RecordError
            A value that a record cannot hold, or a name that every row has of its own.
        """
        taken = [name for name in _OWN if name in values]
        if taken:
            raise RecordError(f"every row has a {taken[0]} of its own: give yours another name")
        row = {"kind": kind, "time": time.time(), "writer": self.name}
        for name, value in values.items():
            row[name] = plain(value)
            if row[name] is None and value is not None:
                row[f"{name}_reason"] = str(float(value))
        data = (json.dumps(row, allow_nan=False) + "\n").encode()
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise RecordError(f"{self.path}: {written} of {len(data)} bytes written (disk full?)")
        return row

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tail:
    """New rows of one writer's name, as they are appended; reads no byte twice.

    Parameters
    ----------
    folder
        Of the run.
    writer
        Name that was given to `Writer`.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self._rows, self._writer = Path(folder) / "rows", writer
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of each file so far

    def new(self) -> list[dict[str, Any]]:
        """Rows that were finished since the last call, in order of time."""
        found = []
        for path in sorted(self._rows.glob(f"{self._writer}-*.jsonl")):
            start, number = self._read.get(path, (0, 0))
            with path.open("rb") as stream:
                stream.seek(start)
                whole = stream.read().rpartition(b"\n")[0]
            if not whole:
                continue
            lines = whole.split(b"\n")
            parsed = [_parse(path, number + k, line) for k, line in enumerate(lines, start=1)]
            found += [row for row in parsed if row["writer"] == self._writer]
            self._read[path] = (start + len(whole) + 1, number + len(lines))
        return sorted(found, key=lambda row: row["time"])


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file, but for a torn last one. Raises `RecordError` at any other damage."""
    pieces = path.read_bytes().split(b"\n")
    for number, line in enumerate(pieces[:-1], start=1):  # the last piece is empty, or torn
        yield _parse(path, number, line)


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, paths as text, nan and infinity as None."""
    if hasattr(value, "tolist"):  # of NumPy and torch
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    raise RecordError(f"a record cannot hold a {type(value).__name__}: {value!r:.80}")


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise RecordError(f"{path}, line {number}: damaged row ({error})") from None
    if not isinstance(row, dict) or any(name not in row for name in _OWN):
        raise RecordError(f"{path}, line {number}: damaged row (not one of a Writer)")
    return row
