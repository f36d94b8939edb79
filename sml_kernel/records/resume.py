"""A folder that is started, or taken up again if the same was asked for there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sml_kernel.records.hold import Hold
from sml_kernel.records.rows import RecordError, Writer

if TYPE_CHECKING:
    from sml_kernel.records import Run


def open_or_start(
    kind: str, asked: Mapping[str, Any], folder: str | os.PathLike[str] | None
) -> Run:
    """The run in a folder if it was asked for with the same parameters, or a new one.

    What ``asked["run"]`` holds is compared name by name as well.

    Raises
    ------
    RecordError
        The folder holds a run of another kind or with other parameters.
    """
    from sml_kernel import records

    if folder is None or not (Path(folder) / "run.json").exists():
        return records.start(folder, kind=kind, parameters=asked)
    run = records.Run(Path(folder))
    made = run.provenance()
    if made["kind"] != kind:
        raise RecordError(f"{folder} holds a run of kind {made['kind']!r}, not of {kind!r}")
    there = _flat(made["parameters"])
    for name, value in _flat(json.loads(json.dumps(asked))).items():  # as it is read again
        if there.get(name) != value:
            raise RecordError(
                f"{folder} holds a run with {name} = {there.get(name)!r}, and you ask for "
                f"{value!r}: choose another folder, or ask for the same to go on with it"
            )
    return run


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in parameters.items() if name != "run"}
    return {**rest, **parameters.get("run", {})}


@contextlib.contextmanager
def under_way(run: Run, name: str, failed: Callable[[], int] = lambda: 0) -> Iterator[Writer]:
    """Hold the folder and give a writer; the status at the end says how it went.

    A run that this process has just started is under way already; any other is taken up again.

    Parameters
    ----------
    name
        Of the writer.
    failed
        Asked at the end for how many parts have failed: with any the run has.

    Raises
    ------
    HeldError
        Another process works there.
    """
    with Hold(run.folder):
        runs = [run]
        if run.provenance()["pid"] != os.getpid() or run.status() != "running":
            runs.append(run.go_on(run.provenance()["parameters"]))
        try:
            with run.writer(name) as writer:
                yield writer
        except BaseException as error:
            status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            for each in runs:
                each.finish(status, error=f"{type(error).__name__}: {error}")
            raise
        parts = failed()
        for each in runs:
            each.finish("failed" if parts else "done", failed_parts=parts, error="")
