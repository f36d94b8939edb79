"""Notebooks through real kernels: what the record says of each way to end, and the exit code."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.sign import NotebookNotary

from sml_kernel import batch, records

pytestmark = pytest.mark.notebook
PARAMETERS = (
    "seed: int = 3  # of everything\nsite: str | None = None\nfolder: str = 'runs'\nextra = 1"
)


@pytest.fixture(autouse=True)
def _own_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter's folders are the test's own; the python3 kernelspec found first is a trap."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    trap = tmp_path / "jupyter" / "kernels" / "python3"
    trap.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "Trap", "language": "python"}
    (trap / "kernel.json").write_text(json.dumps(spec))


def notebook(folder: Path, *cells: str, parameters: str | None = None) -> Path:
    made = nbformat.v4.new_notebook()  # without a kernelspec, as in git
    if parameters is not None:
        tags = {"tags": ["parameters"]}
        made.cells.append(nbformat.v4.new_code_cell(parameters, metadata=tags))
    made.cells.append(nbformat.v4.new_markdown_cell("# Tracks of $p_T > 1$ GeV"))
    made.cells.extend(nbformat.v4.new_code_cell(cell) for cell in cells)
    path = folder / "study.ipynb"
    nbformat.write(made, path)
    return path


def run(path: Path, values: dict[str, Any] | None = None, **how: Any) -> batch.Result:
    return batch.run(path, values, folder=path.parent / "run", progress=False, **how)


def executed(result: batch.Result) -> Any:
    """The output notebook, which must be trusted."""
    content = nbformat.read(result.notebook, as_version=4)
    assert NotebookNotary().check_signature(content)
    return content


def test_success(tmp_path: Path) -> None:
    path = notebook(
        tmp_path,
        "import sys, os; print(seed, site, sys.executable, os.getcwd())",
        "print(folder)",
        parameters=PARAMETERS,
    )
    result = run(path, {"seed": 5, "site": None})
    assert (result.status, result.exit_code, result.error) == ("done", 0, "")
    content = executed(result)
    assert content.cells[3].outputs[0].text == f"5 None {sys.executable} {Path.cwd()}\n"
    assert content.cells[4].outputs[0].text == f"{result.folder.resolve() / 'results'}\n"
    record = records.Run(result.folder)
    assert record.status() == "done"
    assert record.provenance()["parameters"] == {"seed": 5, "site": None}
    rows = record.rows("cell")
    assert rows.cell.tolist() == [1, 2, 3, 4]
    assert set(rows.status) == {"ok"}
    assert (rows.duration_s > 0).all()


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    widget = "import ipywidgets; ipywidgets.IntSlider(description='of widgets the text')"
    page = run(notebook(tmp_path, widget)).html.read_text()
    assert "of widgets the text" in page
    assert re.findall(r"""(?:src=|import\(|url\()["']?https?:[^"')]*""", page) == []


def test_cell_error(tmp_path: Path) -> None:
    result = run(notebook(tmp_path, "1", "raise ValueError('bad luck')", "print('never')"))
    assert (result.status, result.exit_code) == ("cell error", 1)
    assert result.error == "In [2] raised ValueError: bad luck"
    said = records.Run(result.folder).provenance()
    assert (said["status"], said["outcome"], said["exit_code"]) == ("failed", "cell error", 1)
    assert (said["error_cell"], said["error_name"], said["error_value"]) == (
        2,
        "ValueError",
        "bad luck",
    )
    assert records.read(result.folder, "cell").status.tolist() == ["ok", "error"]
    executed(result)
    assert "bad luck" in result.html.read_text()


def test_killed_kernel_and_its_children(tmp_path: Path) -> None:
    child = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    result = run(notebook(tmp_path, child, "import os; os.kill(os.getpid(), 9)", "1"))
    assert (result.status, result.exit_code) == ("kernel killed", 3)
    assert "SIGKILL" in result.error
    assert "In [2]" in result.error
    said = records.Run(result.folder).provenance()
    assert (said["status"], said["outcome"]) == ("failed", "kernel killed")
    assert records.read(result.folder, "cell").status.tolist() == ["ok", "unfinished"]
    cells = executed(result).cells
    assert "kernel killed" in cells[0].source
    assert [cell.metadata.papermill.status for cell in cells[2:]] == [
        "completed",
        "failed",
        "pending",
    ]
    pid = int(cells[2].outputs[0].text)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    assert "kernel killed" in result.html.read_text()


def test_timeout_shows_where(tmp_path: Path) -> None:
    result = run(notebook(tmp_path, "1", "import time; time.sleep(600)"), timeout_s=3)
    assert (result.status, result.exit_code) == ("timeout", 124)
    assert result.error == "3 s were over in In [2]"
    said = records.Run(result.folder).provenance()
    assert (said["status"], said["outcome"], said["error_name"]) == ("failed", "timeout", None)
    assert "time.sleep" in str(executed(result).cells[-1].outputs)


def test_timeout_of_a_kernel_that_will_not_listen(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(600)"
    started = time.monotonic()
    result = run(notebook(tmp_path, deaf), timeout_s=2)
    assert (result.status, result.exit_code) == ("timeout", 124)
    assert time.monotonic() - started < 2 + 5 + 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sede": 5}, r"no parameter sede; it has \(with defaults\):\n  seed: int = 3\n"),
        ({"seed": 0.5}, r"seed is int in the notebook, not float \(0\.5\)"),
        ({"seed": True}, "seed is int"),
        ({"site": 3}, r"site is str \| None"),
        ({"extra": object()}, "cannot be written"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = notebook(tmp_path, "open('ran', 'w')", parameters=PARAMETERS)
    with pytest.raises(batch.ParameterError, match=message):
        run(path, values)
    assert {each.name for each in tmp_path.iterdir()} == {"jupyter", "study.ipynb"}


def test_a_page_that_cannot_be_written_does_not_change_the_status(tmp_path: Path) -> None:
    """/dev/full is a disk without room."""
    cell = "from pathlib import Path; Path(folder).parent.joinpath('study.html')"
    cell += ".symlink_to('/dev/full')"
    result = run(notebook(tmp_path, cell, parameters=PARAMETERS))
    assert (result.status, result.exit_code) == ("done", 0)
    assert "No space left on device" in result.unsealed
    said = records.Run(result.folder).provenance()
    assert (said["status"], said["outcome"], said["exit_code"]) == ("done", "done", 0)


def test_an_error_of_the_runner_is_not_the_notebooks(tmp_path: Path) -> None:
    """Papermill cannot write its notebook: a folder came into its place."""
    cell = "from pathlib import Path; here = Path(folder).parent / 'study.ipynb'; here.unlink(); "
    cell += "here.mkdir()"
    with pytest.raises(batch.RunnerError, match="IsADirectoryError"):
        run(notebook(tmp_path, cell, "1", parameters=PARAMETERS))
    said = records.Run(tmp_path / "run").provenance()
    assert (said["status"], said["outcome"], said["exit_code"]) == ("failed", "runner error", 4)


def test_a_full_folder_is_refused(tmp_path: Path) -> None:
    path = notebook(tmp_path, "1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "earlier").touch()
    with pytest.raises(records.RecordError, match="not empty"):
        run(path)


def test_values_from_text() -> None:
    annotations = {
        "label": "str",
        "account": "str | None",
        "site": "Optional[str]",
        "n": "int | str",
    }
    known = {name: batch.Parameter(name, kind, "''") for name, kind in annotations.items()}
    either = batch.parse(known, ["account=1234", "site=None", "n=5", 'label="x"'])
    assert either == {"account": "1234", "site": None, "n": 5, "label": '"x"'}
    assert batch.check(known, either) == either
    pairs = ["label=12", "a=12", "b=1e-3", "c=true", "d=None", "e=[1, 2]", "f=laptop", "g=x=y"]
    assert batch.parse(known, pairs) == {
        "label": "12",
        "a": 12,
        "b": 0.001,
        "c": True,
        "d": None,
        "e": [1, 2],
        "f": "laptop",
        "g": "x=y",
    }
    with pytest.raises(batch.ParameterError, match="name=value"):
        batch.parse(known, ["epochs"])
