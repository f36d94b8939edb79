"""The folder of a study: new, or of the same study, which then goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sml_kernel import records
from sml_kernel.scaling.results import StudyError


def open_or_start(
    kind: str, asked: Mapping[str, Any], folder: str | os.PathLike[str] | None
) -> records.Run:
    """The run in a folder if it was asked for with the same parameters, or a new one.

    What ``asked["run"]`` holds is compared name by name as well.

    Raises
    ------
    StudyError
        The folder holds a run of another kind or with other parameters.
    """
    if folder is None or not (Path(folder) / "run.json").exists():
        return records.start(folder, kind=kind, parameters=asked)
    run = records.Run(Path(folder))
    made = run.provenance()
    if made["kind"] != kind:
        raise StudyError(f"{folder} holds a run of kind {made['kind']!r}, not of {kind!r}")
    there = _flat(made["parameters"])
    for name, value in _flat(json.loads(json.dumps(asked))).items():  # as it is read again
        if there.get(name) != value:
            raise StudyError(
                f"{folder} holds a study with {name} = {there.get(name)!r}, and you ask for "
                f"{value!r}: choose another folder, or ask for the same to go on with it"
            )
    return run


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in parameters.items() if name != "run"}
    return {**rest, **parameters.get("run", {})}


@contextlib.contextmanager
def under_way(
    run: records.Run, name: str, failed_points: Callable[[], int]
) -> Iterator[records.Writer]:
    """Hold the folder and give a writer; the status at the end says how it went.

    A run that this process has just started is under way already; any other is taken up again.

    Parameters
    ----------
    name
        Of the writer.
    failed_points
        Asked at the end: a study with any has failed.

    Raises
    ------
    StudyError
        Another process is measuring there.
    """
    with _alone(run.folder):
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
        failed = failed_points()
        for each in runs:
            each.finish("failed" if failed else "done", failed_points=failed, error="")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        hold = records.Hold(folder)
    except records.HeldError:
        raise StudyError(f"another process is measuring the study in {folder}") from None
    try:
        yield
    finally:
        hold.release()
