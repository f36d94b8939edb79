"""One execution of a notebook by papermill, in a kernel that is this very Python."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from sml_kernel.records import Writer

_SHUTDOWN_S = 20.0
_WIDGET = "application/vnd.jupyter.widget-view+json"
#: nbconvert's page without what it would load from the network (require.js, MathJax, mermaid).
_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""


class _ThisInterpreter(AsyncKernelManager):
    """Starts the kernel from this Python; installed kernelspecs, the user's too, do not matter."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


class Execution:
    """Runs a notebook in the thread that calls `run`; another may interrupt and kill its kernel.

    Attributes
    ----------
    output
        The executed notebook, written after each cell.
    ended
        Set when the kernel is gone and the notebook written.
    number
        Of the cell under way or last executed, as in ``In [3]``; 0: none yet.
    unfinished
        Index of the cell under way, None: none is.
    raised
        Name and value of the exception that a cell raised.
    """

    def __init__(
        self, source: Path, output: Path, values: Mapping[str, Any], writer: Writer, progress: bool
    ):
        self.output, self.ended, self.number = output, threading.Event(), 0
        self.unfinished: int | None = None
        self.raised: tuple[str | None, str | None] = (None, None)
        self._source, self._values, self._writer, self._progress = source, values, writer, progress
        # Unix sockets in a folder of our own: TCP would be open to every user of a login node
        self._sockets = tempfile.TemporaryDirectory(prefix="sml-kernel-")
        self._manager = _ThisInterpreter(
            kernel_name="python3",
            transport="ipc",
            connection_file=str(Path(self._sockets.name) / "kernel.json"),
        )
        self._failure: BaseException | None = None
        self._exit_code: int | None = None
        self._pid: int | None = None
        self._started = 0.0

    def run(self) -> None:
        """Execute all cells, or those up to a failure; never raises, see `verdict`."""
        import papermill

        try:
            papermill.execute_notebook(
                str(self._source),
                str(self.output),
                parameters=dict(self._values),
                kernel_name="python3",
                language="python",
                progress_bar=self._progress,
                km=self._manager,
                on_cell_execute=self._on_execute,
                on_cell_executed=self._on_executed,
            )
        except BaseException as failure:  # judged by the thread that waits
            self._failure = failure
        try:
            self._leave_kernel()
        finally:
            self._sockets.cleanup()
            self.ended.set()

    def interrupt(self) -> None:
        """SIGINT to the kernel: its cell raises KeyboardInterrupt, and papermill stops there."""
        self._signal(signal.SIGINT, group=False)

    def kill(self) -> None:
        """End the kernel with all processes of its group."""
        self._signal(signal.SIGKILL, group=True)

    def verdict(self) -> tuple[str, str]:
        """Status as far as the notebook and its kernel know, and one line on what went wrong.

        Raises
        ------
        BaseException
            What papermill raised for neither reason: a disk that is full, a kernel that does not
            start.
        """
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        failure = self._failure
        if failure is None:
            return "done", ""
        if isinstance(failure, PapermillExecutionError):
            self.raised = (failure.ename, failure.evalue)
            return "cell error", f"In [{self.number}] raised {failure.ename}: {failure.evalue}"
        if isinstance(failure, DeadKernelError):
            return "kernel killed", f"the kernel {_way(self._exit_code)} {self.place()}"
        if self._exit_code is not None:  # it died under papermill's hands
            return "kernel killed", f"the kernel {_way(self._exit_code)} {self.place()}: {failure}"
        raise failure

    def place(self) -> str:
        """Which cell was under way: ``in In [3]``."""
        return f"in In [{self.number}]" if self.number else "before the first cell"

    def _on_execute(self, *, cell_index: int, **_: Any) -> None:
        if self._pid is None:
            self._pid = self._manager.provisioner.pid  # type: ignore[union-attr]
        self.number += 1
        self._started, self.unfinished = time.monotonic(), cell_index

    def _on_executed(self, *, cell_index: int, execute_reply: Mapping[str, Any], **_: Any) -> None:
        self.unfinished = None
        self._row(execute_reply["content"]["status"], cell_index)

    def _row(self, status: str, cell_index: int) -> None:
        duration_s = time.monotonic() - self._started
        self._writer.append(
            "cell", cell=self.number, index=cell_index, status=status, duration_s=duration_s
        )

    def _leave_kernel(self) -> None:
        """Ask the kernel to leave, so that its exit handlers run; then end what it left behind."""
        process = getattr(self._manager.provisioner, "process", None)
        if process is None:  # it never started
            return
        self._pid = process.pid
        self._exit_code = process.poll()
        if self.unfinished is not None:
            self._row("unfinished", self.unfinished)
        if self._exit_code is None:
            asyncio.run(self._shut_down())
        self._signal(signal.SIGTERM, group=True)  # resource trackers survive it, and tidy up
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline and self._signal(0, group=True):
            time.sleep(0.02)
        self._signal(signal.SIGKILL, group=True)

    async def _shut_down(self) -> None:
        # What is too slow to leave is killed with its group right after
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._manager.shutdown_kernel(), _SHUTDOWN_S)

    def _signal(self, number: int, group: bool) -> bool:
        """Signal the kernel or its group, which it leads; whether there was anything to signal."""
        pid = self._pid or getattr(self._manager.provisioner, "pid", None)
        if pid is None:
            return False
        try:
            os.killpg(pid, number) if group else os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True


def seal(execution: Execution, status: str, error: str, html: Path) -> None:
    """Write the honest status into the executed notebook, trust it, and make a page of it."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbformat.sign import NotebookNotary

    notebook = nbformat.read(execution.output, as_version=4)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "language": "python",
        "display_name": "Python 3",
    }
    notebook.metadata["sml"] = {"status": status, "error": error}
    for cell in notebook.cells:  # after a failure papermill calls the rest "completed"
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            cell.metadata.setdefault("papermill", {})["status"] = "pending"
    if execution.unfinished is not None:  # and the one in which the kernel died
        marks = notebook.cells[execution.unfinished].metadata.setdefault("papermill", {})
        marks.update(status="failed", exception=True)
    if status not in ("done", "cell error"):  # for a cell's error papermill leaves its own note
        note = nbformat.v4.new_markdown_cell(f"**This run is not complete: {status}.** {error}")
        note.metadata["tags"] = ["sml-status"]
        notebook.cells.insert(0, note)
    nbformat.write(notebook, execution.output)
    NotebookNotary().sign(notebook)
    page = _without_widgets(notebook)
    text, _ = HTMLExporter(raw_template=_TEMPLATE).from_notebook_node(
        page, {"metadata": {"name": execution.output.stem}}
    )
    html.write_text(text, encoding="utf-8")


def _without_widgets(notebook: Any) -> Any:
    """A copy whose widgets show as their picture or text: a page has no kernel, and no network."""
    page = copy.deepcopy(notebook)
    page.metadata.pop("widgets", None)
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(_WIDGET, None)
        if "outputs" in cell:  # an output of nothing but a widget has nothing left to show
            cell.outputs = [output for output in cell.outputs if output.get("data", True)]
    return page


def _way(exit_code: int | None) -> str:
    if exit_code is None:
        return "died"
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (perhaps for want of memory)" if exit_code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
