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
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sml_kernel.records import provenance
from sml_kernel.records.hold import HeldError, Hold
from sml_kernel.records.provenance import frozen_environment, hash_files
from sml_kernel.records.resume import open_or_start, under_way
from sml_kernel.records.rows import RecordError, Tail, Writer, lines, plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "STATUSES",
    "HeldError",
    "Hold",
    "RecordError",
    "Run",
    "Tail",
    "Writer",
    "frozen_environment",
    "hash_files",
    "open_or_start",
    "read",
    "start",
    "summarise",
    "under_way",
]

#: A run is ``running`` until its `Run.finish`, then one of the others.
STATUSES = ("running", "done", "failed", "stopped")


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

    def tail(self, writer: str = "main") -> Tail:
        """Rows of writers of that name as they come: see `Tail`."""
        return Tail(self.folder, writer)

    def provenance(self) -> dict[str, Any]:
        """What `start` and `finish` wrote: parameters, seed, versions, commit, host, status."""
        path = self.folder / "run.json"
        try:
            found = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise RecordError(f"{self.folder} is not a run folder: it has no run.json") from None
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
        except UnicodeDecodeError as error:
            raise RecordError(f"{path}: not JSON ({error})") from None
        if not isinstance(found, dict) or "status" not in found:
            raise RecordError(f"{path}: not the record of a run, it has no status")
        return found

    def status(self) -> str:
        """One of `STATUSES`, or ``lost``: still ``running`` by its record, its process gone.

        Only a run of this very host can be seen to be lost; elsewhere it stays ``running``.
        """
        seen = self.provenance()
        if seen["status"] == "running" and not provenance.alive(seen):
            return "lost"
        return seen["status"]

    def finish(self, status: str = "done", **values: Any) -> None:
        """Set the final status and the end time; `values` (an error, a figure) are added."""
        known = [each for each in STATUSES if each != "running"]
        if status not in known:
            raise RecordError(f"unknown status {status!r}; known: {', '.join(known)}")
        self.note(status=status, end=_now(), **values)

    def note(self, **values: Any) -> None:
        """Add to the provenance what is known only after the start, such as ``data_hash``.

        Any process may: each adds its own, none takes away another's.
        """
        self.provenance()  # raises where there is no run
        # rows, not the folder itself: that is the caller's to lock (a study does)
        descriptor = os.open(self.folder / "rows", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # until it is closed
            _write_json(self.folder / "run.json", {**self.provenance(), **plain(values)})
        finally:
            os.close(descriptor)

    def go_on(self, parameters: Mapping[str, Any]) -> Run:
        """Take the run up again: it is ``running`` by this process.

        Only for who holds the folder (`Hold`).

        Returns
        -------
        Run
            The record of this time below ``sessions``, numbered from 1, with its commit, versions
            and host; of the same kind with ``-session`` behind it.
        """
        kind = f"{self.provenance()['kind']}-session"
        own = self.part("sessions", kind=kind, parameters=parameters)
        mine = {name: own.provenance()[name] for name in ("host", "pid", "pid_started")}
        self.note(status="running", end=None, error="", **mine)
        return own

    def part(
        self, below: str, *, kind: str, parameters: Mapping[str, Any], seed: int | None = None
    ) -> Run:
        """A run of its own below this one: ``below/0001``, ``below/0002``, …, see `start`."""
        while True:
            number = len(list((self.folder / below).glob("*"))) + 1
            folder = self.folder / below / f"{number:04d}"
            try:
                folder.mkdir(parents=True)  # two that ask at once get two numbers
            except FileExistsError:
                continue
            return start(folder, kind=kind, parameters=parameters, seed=seed)

    def rows(self, kind: str | None = None) -> pd.DataFrame:
        """All rows in order of time, or those of one kind (see `read`)."""
        return read(self.folder, kind)


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
        The folder holds something already, or a parameter is nothing that JSON can hold.
    """
    if folder is None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path("runs") / f"{kind}-{stamp}-{secrets.token_hex(2)}"
    path = Path(folder)
    if path.is_file():
        raise RecordError(f"{path} is a file: choose a new folder")
    if path.exists() and any(path.iterdir()):
        raise RecordError(f"{path} is not empty: choose a new folder, or remove it first")
    environment = frozen_environment()
    record = {
        "kind": kind,
        "status": "running",
        "start": _now(),
        "end": None,
        "parameters": plain(parameters),
        "seed": seed,
        "data_hash": data_hash,
        **provenance.software(environment),
        **provenance.process(),
        "machine": provenance.machine(),
    }
    (path / "rows").mkdir(parents=True, exist_ok=True)
    (path / "environment.txt").write_text(environment)
    _write_json(path / "run.json", record)
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
    made_by = run.provenance()
    rows = [row for path in sorted((run.folder / "rows").glob("*.jsonl")) for row in lines(path)]
    frame = pd.DataFrame([row for row in rows if kind is None or row["kind"] == kind])
    if len(frame):
        frame = frame.sort_values("time", kind="stable", ignore_index=True)
    frame.attrs["provenance"] = made_by
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


def _write_json(path: Path, value: Any) -> None:
    """Replace the file at once: a reader sees the old or the new text, never half of one."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    partial.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
