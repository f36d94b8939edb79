"""Records: what was measured, with its provenance — the only seam between computing and looking.

A *run* is a folder::

    run.json            provenance: parameters, seed, versions, commit, host, start, end, status
    environment.txt     every installed distribution with its version, as ``pip freeze`` names them
    rows/*.jsonl        appended rows, one file a writer, one JSON object a line

Nothing in it is absolute, so the folder may be moved, copied or read by somebody without write
access. A row is written by a single ``write`` to a file that belongs to one writer, so any number
of ranks may append at once; a writer killed in the middle of a row leaves a torn last line, which
reading passes over. A torn line anywhere else is damage, and raises.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: A run is ``running`` until its `Run.finish`, then one of the others.
STATUSES = ("running", "done", "failed", "stopped")
_NAMED_VERSIONS = ("sml-kernel", "torch", "torch_geometric", "numpy", "dask", "pyacts", "pythia8mc")


class RecordError(ValueError):
    """A record that is missing, damaged or not writable; the message names file and line."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Parameters
    ----------
    folder
        Where the run lies. `start` makes one, ``Run(folder)`` names one that exists.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    def writer(self, name: str = "main") -> Writer:
        """A new file of rows that only the caller appends to; `name` is kept in every row."""
        return Writer(self.folder, name)

    def provenance(self) -> dict[str, Any]:
        """What `start` and `finish` wrote: parameters, seed, versions, commit, host, status."""
        path = self.folder / "run.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise RecordError(f"{self.folder} is not a run folder: it has no run.json") from None
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None

    def status(self) -> str:
        """One of `STATUSES`, or ``lost``: still ``running`` by its record, its process gone.

        Only a run of this very host can be seen to be lost; elsewhere it stays ``running``.
        """
        seen = self.provenance()
        if seen["status"] == "running" and seen["host"] == socket.gethostname():
            return "running" if _alive(seen["pid"], seen["pid_started"]) else "lost"
        return seen["status"]

    def finish(self, status: str = "done", **values: Any) -> None:
        """Set the final status and the end time; `values` (an error, a figure) are added."""
        if status not in STATUSES:
            raise RecordError(f"unknown status {status!r}; known: {', '.join(STATUSES)}")
        self.note(status=status, end=_now(), **values)

    def note(self, **values: Any) -> None:
        """Add to the provenance what is known only after the start, such as ``data_hash``."""
        _write_json(self.folder / "run.json", {**self.provenance(), **values})

    def rows(self, kind: str | None = None) -> pd.DataFrame:
        """All rows in order of time, or those of one kind (see `read`)."""
        return read(self.folder, kind)


class Writer:
    """Appends rows to a file of its own. A context manager; safe to abandon at any moment."""

    def __init__(self, folder: Path, name: str) -> None:
        rows = Path(folder) / "rows"
        rows.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.path = (
            rows / f"{name}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        )
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o644)

    def append(self, kind: str, **values: Any) -> dict[str, Any]:
        """Append one row of the given kind, and return it.

        Values are numbers, strings, booleans, None, and lists or dicts of these. JSON has no nan
        or infinity: such a value is written as null, beside ``<name>_reason`` that says which.
        """
        row = {"kind": kind, "time": time.time(), "writer": self.name, **_finite(values)}
        line = json.dumps(row, allow_nan=False, default=_plain) + "\n"
        data = line.encode()
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


def start(
    folder: str | os.PathLike[str] | None = None,
    *,
    kind: str,
    parameters: Mapping[str, Any],
    seed: int | None = None,
    data_hash: str | None = None,
) -> Run:
    """Make a run folder and write its provenance.

    Parameters
    ----------
    folder
        A folder that does not exist or is empty. None: a new one, named by `kind` and time, below
        ``runs`` in the working directory.
    kind
        What ran: ``"train"``, ``"workers"``, ``"notebook"``, …
    parameters
        What it was asked to do.
    seed, data_hash
        Random seed, and hash of the data set (`hash_files`), where there are any.

    Raises
    ------
    RecordError
        The folder holds something already.
    """
    if folder is None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path("runs") / f"{kind}-{stamp}-{secrets.token_hex(2)}"
    path = Path(folder)
    if path.exists() and any(path.iterdir()):
        raise RecordError(f"{path} is not empty: choose a new folder, or remove it first")
    (path / "rows").mkdir(parents=True, exist_ok=True)
    environment = frozen_environment()
    (path / "environment.txt").write_text(environment)
    _write_json(
        path / "run.json",
        {
            "kind": kind,
            "status": "running",
            "start": _now(),
            "end": None,
            "parameters": dict(parameters),
            "seed": seed,
            "data_hash": data_hash,
            "versions": _versions(),
            "environment_hash": hashlib.sha256(environment.encode()).hexdigest(),
            "commit": _commit(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": _started(os.getpid()),
        },
    )
    return Run(path)


def read(folder: str | os.PathLike[str], kind: str | None = None) -> pd.DataFrame:
    """All rows below `folder` as a table in order of time, or those of one kind.

    The provenance is in ``.attrs["provenance"]``. Columns that a row lacks are nan in it.

    Raises
    ------
    RecordError
        No such run, or a damaged line that is not the torn last one of its file.
    """
    import pandas as pd

    run = Run(Path(folder))
    provenance = run.provenance()
    rows = [row for path in sorted((run.folder / "rows").glob("*.jsonl")) for row in _lines(path)]
    frame = pd.DataFrame([row for row in rows if kind is None or row["kind"] == kind])
    if len(frame):
        frame = frame.sort_values("time", kind="stable", ignore_index=True)
    frame.attrs["provenance"] = provenance
    return frame


def summarise(frame: pd.DataFrame, by: str | list[str], value: str) -> pd.DataFrame:
    """Count, mean, standard error of the mean, median and quartiles of `value` in each group.

    The error of a group of one is nan: a single repeat has no spread to judge by.
    """
    groups = frame.groupby(by)[value]
    return groups.agg(
        n="count",
        mean="mean",
        error="sem",
        median="median",
        lower_quartile=lambda column: column.quantile(0.25),
        upper_quartile=lambda column: column.quantile(0.75),
    ).reset_index()


def hash_files(paths: list[Path]) -> str:
    """SHA-256 over names and contents of files: the identity of a data set."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def frozen_environment() -> str:
    """Every installed distribution as ``name==version``, one a line, sorted."""
    found = {
        f"{distribution.metadata['Name']}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
    }
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # the last piece is empty, or torn
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}, line {number}: damaged row ({error.msg})") from None


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in values.items():
        value = _plain(value) if hasattr(value, "tolist") else value
        if isinstance(value, float) and not math.isfinite(value):
            row[name], row[f"{name}_reason"] = None, str(value)
        else:
            row[name] = value
    return row


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays, and paths, as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def _write_json(path: Path, value: Any) -> None:
    """Replace the file at once: a reader sees the old or the new text, never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2, default=_plain) + "\n")
    partial.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in _NAMED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _commit() -> str | None:
    """The commit of the checkout this package runs from, ``+changed`` if it was edited."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        if head.returncode:
            return None
        edits = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+changed" if edits.stdout else "")


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: tells a reused process id apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _alive(pid: int, started: str | None) -> bool:
    return started is not None and _started(pid) == started
