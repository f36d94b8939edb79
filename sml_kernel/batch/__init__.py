"""Notebooks that run unattended, with an honest status.

::

    result = batch.run("notebooks/02_train_gnn.ipynb", {"epochs": 5}, folder="runs/first")

Papermill executes; what it writes into the notebook is not a status to rely on: a kernel that was
killed leaves cells that say ``completed``, SIGTERM leaves ``running``. So the run has a record of
its own (`sml_kernel.records`, kind ``notebook``), with a row for each cell and one of these:

=================  =========  ==================================================================
status             exit code  meaning
=================  =========  ==================================================================
``done``           0          every cell was executed
``cell error``     1          a cell raised
``kernel killed``  3          the kernel ended in mid-run: out of memory, kill -9, os._exit
``runner error``   4          papermill or the runner failed, not the notebook: `RunnerError`
``timeout``        124        the whole run took longer than ``timeout_s``
``signal``         128 + n    the runner received SIGINT (130) or SIGTERM (143)
=================  =========  ==================================================================

(2 is the command line's, for a request that was refused before anything ran.) The kernel is this
very Python, whatever kernelspecs the machine has, and works in the current directory.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sml_kernel import records
from sml_kernel.batch.parameters import Parameter, ParameterError, check, declared, parse

if TYPE_CHECKING:
    from sml_kernel.batch.execution import Execution

__all__ = [
    "EXIT_CODES",
    "Parameter",
    "ParameterError",
    "Result",
    "RunnerError",
    "parameters_of",
    "parse",
    "run",
]

EXIT_CODES = {"done": 0, "cell error": 1, "kernel killed": 3, "runner error": 4, "timeout": 124}
_log = logging.getLogger(__name__)
#: For a cell to leave in order after SIGINT, before its kernel is killed.
_GRACE_S = 5.0


class RunnerError(RuntimeError):
    """The run failed for a reason that is not the notebook's, such as a full disk; its cause is."""


@dataclass(frozen=True)
class _EndedBy:
    status: str
    exit_code: int
    what: str


@dataclass(frozen=True)
class Result:
    """How a notebook's run went.

    Attributes
    ----------
    status, exit_code
        See the table of `sml_kernel.batch`.
    folder
        The run folder: the record, ``NAME.ipynb``, ``NAME.html``, and ``results`` if the notebook
        has a parameter ``folder``.
    notebook, html
        The executed notebook, trusted, and the same as a page that loads nothing from elsewhere.
    error
        One line, empty when done.
    unsealed
        Why the notebook is not trusted or has no page, for instance a full disk; empty: it has.
    """

    status: str
    folder: Path
    notebook: Path
    html: Path
    error: str
    exit_code: int
    unsealed: str = ""


def run(
    notebook: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    progress: bool = True,
) -> Result:
    """Execute a notebook in a kernel of its own; neither it nor its source is changed.

    Parameters
    ----------
    notebook
        An ``.ipynb`` of Python.
    parameters
        Replace values of its ``parameters`` cell. If that has a ``folder`` which is not given
        here, it becomes ``<run folder>/results``, so that what the notebook writes lies beside it.
    folder
        The run folder, new or empty. None: a new one below ``runs``.
    timeout_s
        Of the whole run. Then, and after SIGINT or SIGTERM, the cell is interrupted, and 5 s later
        the kernel is killed with all processes that it started.
    progress
        Show a progress bar on stderr, a step a cell.

    Returns
    -------
    Result
        Also of a run that failed; only what is wrong before anything ran raises.

    Raises
    ------
    FileNotFoundError, ParameterError, RecordError
        No such notebook; no notebook, or a name or a value that it does not take; a folder that
        is not empty or a file.
    RunnerError
        The run itself failed.

    Notes
    -----
    SIGINT and SIGTERM are handled for the time of the run if the caller is the main thread.
    """
    source = Path(notebook)
    known = parameters_of(source)
    values = check(known, parameters or {})
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise records.RecordError(f"{folder} is a file: name a new folder, or an empty one")
    record = records.start(folder, kind="notebook", parameters=values)
    if "folder" in known:
        values = {"folder": str(record.folder.resolve() / "results"), **values}
    try:
        return _execute(record, source, values, timeout_s, progress)
    except BaseException as error:  # papermill's own, a full disk: no status of the notebook
        failure = _runner_error(record, error)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise failure from error


def parameters_of(notebook: str | os.PathLike[str]) -> dict[str, Parameter]:
    """What the ``parameters`` cell of a notebook declares, by name.

    Raises
    ------
    FileNotFoundError, ParameterError
        No such notebook; one that cannot be read, or is not of Python.
    """
    import nbformat

    if Path(notebook).is_dir():
        raise ParameterError(f"{notebook} is a folder: name a notebook in it")
    try:
        content = nbformat.read(notebook, as_version=4)
        cells = content.cells
    except nbformat.reader.NotJSONError:
        raise ParameterError(f"{notebook} is not a notebook: it is not JSON") from None
    except (UnicodeDecodeError, nbformat.ValidationError, AttributeError) as error:
        what = str(error).partition("\n")[0]  # AttributeError: JSON, but of another form
        raise ParameterError(f"{notebook} is not a notebook: {what}") from None
    language = content.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise ParameterError(f"{notebook} is a notebook of {language}; only Python runs here")
    return declared(cells)


def _execute(
    record: records.Run,
    source: Path,
    values: Mapping[str, Any],
    timeout_s: float | None,
    progress: bool,
) -> Result:
    from sml_kernel.batch.execution import Execution

    with record.writer("notebook") as writer, _signals_kept() as received:
        writer.append("notebook", name=source.name, sha256=records.hash_files([source]))
        execution = Execution(source, record.folder / source.name, values, writer, progress)
        ended_by = _follow(execution, received, timeout_s)
        return _conclude(record, execution, ended_by)


def _follow(execution: Execution, received: list[int], timeout_s: float | None) -> _EndedBy | None:
    """Wait for the end; what ended the run from outside, if anything did."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ended_by, kill_at = None, 0.0
    thread = threading.Thread(target=execution.run, name="notebook", daemon=True)
    thread.start()
    while not execution.ended.wait(0.1):
        now = time.monotonic()
        if ended_by is not None:
            if now > kill_at:
                execution.kill()
                kill_at = now + 1
            continue
        if received:
            name = signal.Signals(received[0]).name
            ended_by = _EndedBy("signal", 128 + received[0], f"{name} was received")
        elif deadline is not None and now > deadline:
            ended_by = _EndedBy("timeout", EXIT_CODES["timeout"], f"{timeout_s} s were over")
        else:
            continue
        kill_at = now + _GRACE_S
        execution.interrupt()
    thread.join()
    return ended_by


def _conclude(record: records.Run, execution: Execution, ended_by: _EndedBy | None) -> Result:
    """The status first: what happens to the page does not change how the run went."""
    from sml_kernel.batch.execution import seal

    status, error = execution.verdict()
    code = EXIT_CODES[status]
    if ended_by is not None and status != "done":  # what the kernel died of, or a cell raised
        status, code = ended_by.status, ended_by.exit_code
        error = f"{ended_by.what} {execution.place()}"
    raised = execution.raised if status == "cell error" else (None, None)
    record.finish(
        {"done": "done", "signal": "stopped"}.get(status, "failed"),
        outcome=status,
        exit_code=code,
        error=error or None,
        error_cell=execution.number if error else None,
        error_name=raised[0],
        error_value=raised[1],
    )
    html, unsealed = execution.output.with_suffix(".html"), ""
    try:
        seal(execution, status, error, html)
    except Exception as failure:
        unsealed = f"{type(failure).__name__}: {failure}"
        _log.warning("the run is %s, but its notebook is not sealed: %s", status, unsealed)
    return Result(status, record.folder, execution.output, html, error, code, unsealed)


def _runner_error(record: records.Run, error: BaseException) -> RunnerError:
    """The error to raise, after the record was told: which may fail for the same reason."""
    told = f"{type(error).__name__}: {error}"
    failure = RunnerError(told)
    code = EXIT_CODES["runner error"]
    try:
        record.finish("failed", outcome="runner error", exit_code=code, error=told)
    except OSError as second:
        failure.add_note(f"and the record could not be finished: {second}")
    return failure


@contextmanager
def _signals_kept() -> Iterator[list[int]]:
    """Numbers of the signals that came, in a list that grows."""
    received: list[int] = []

    def keep(number: int, _: FrameType | None) -> None:
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, keep) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
