"""The command ``sml`` as a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from sml_kernel import records

SML = (sys.executable, "-m", "sml_kernel.cli")


def sml(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SML, *arguments], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook that notes its process id, and that it was interrupted, and then sleeps."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    content = nbformat.v4.new_notebook()
    tags = {"tags": ["parameters"]}
    content.cells.append(nbformat.v4.new_code_cell("sleep_s: float = 0.0", metadata=tags))
    content.cells.append(
        nbformat.v4.new_code_cell(
            "import os, time\nfrom pathlib import Path\n"
            "Path('pid.part').write_text(str(os.getpid()))\nPath('pid.part').rename('pid')\n"
            "try:\n    time.sleep(sleep_s)\n"
            "except KeyboardInterrupt:\n    Path('tidied').touch()\n    raise"
        )
    )
    nbformat.write(content, tmp_path / "sleeper.ipynb")
    return tmp_path


def started(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """``sml run`` with its cell under way, and the kernel's process id."""
    arguments = ("run", "sleeper.ipynb", "-p", "sleep_s=600", "--folder", "run")
    process = subprocess.Popen([*SML, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "pid").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, int((folder / "pid").read_text())


def gone(pid: int, timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.notebook
def test_run_says_where_everything_lies(sleeper: Path) -> None:
    done = sml("run", "sleeper.ipynb", "-p", "sleep_s=0.1", "--folder", "run", cwd=sleeper)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("done", "notebook", "run/sleeper.ipynb", "page", "run/sleeper.html", "records", "run")
    ]
    assert "100%" in done.stderr  # the progress bar
    assert records.Run(sleeper / "run").status() == "done"


@pytest.mark.notebook
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_runner(number: signal.Signals, code: int, sleeper: Path) -> None:
    process, kernel = started(sleeper)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert f"signal: {number.name} was received in In [3]" in out
    said = records.Run(sleeper / "run").provenance()
    assert (said["status"], said["outcome"], said["exit_code"]) == ("stopped", "signal", code)
    assert (sleeper / "tidied").exists()
    assert (sleeper / "run" / "sleeper.html").exists()
    assert gone(kernel)


@pytest.mark.notebook
def test_kill_9_of_the_runner_leaves_no_kernel(sleeper: Path) -> None:
    process, kernel = started(sleeper)
    process.kill()
    process.communicate()
    assert gone(kernel)
    assert records.Run(sleeper / "run").status() == "lost"


def test_what_is_refused_has_its_own_exit_code(sleeper: Path) -> None:
    unknown = sml("run", "sleeper.ipynb", "-p", "sleeps=1", cwd=sleeper)
    assert unknown.returncode == 2
    assert "no parameter sleeps; it has (with defaults):\n  sleep_s: float = 0.0" in unknown.stderr
    absent = sml("run", "absent.ipynb", cwd=sleeper)
    assert (absent.returncode, "absent.ipynb" in absent.stderr) == (2, True)
    assert [each.name for each in sleeper.iterdir()] == ["sleeper.ipynb"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((".",), "is a folder: name a notebook in it"),
        (("empty.ipynb",), "empty.ipynb is not a notebook"),
        (("list.ipynb",), "list.ipynb is not a notebook"),
        (("latin.ipynb",), "latin.ipynb is not a notebook"),
        (("sleeper.ipynb", "--folder", "empty.ipynb"), "empty.ipynb is a file: name a new folder"),
        (("sleeper.ipynb", "--folder", "empty.ipynb/run"), "Not a directory"),
    ],
)
def test_what_is_no_notebook_or_folder_is_refused(
    given: tuple[str, ...], words: str, sleeper: Path
) -> None:
    (sleeper / "empty.ipynb").write_text("{}")
    (sleeper / "list.ipynb").write_text("[]")
    (sleeper / "latin.ipynb").write_bytes(b'{"\xe9": 1}')
    done = sml("run", *given, cwd=sleeper)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert words in done.stderr


def launched(folder: Path, host: str | None = None) -> Path:
    """The run folder of a launch whose process has ended, with its keys."""
    code = "import sys; from sml_kernel import records; "
    code += "records.start(sys.argv[1], kind=sys.argv[2], parameters={})"
    kind = "workers" if folder.name.startswith("workers") else "notebook"
    subprocess.run([sys.executable, "-c", code, str(folder), kind], check=True)
    if host is not None:
        records.Run(folder).note(host=host)
    (folder / "tls").mkdir()
    (folder / "tls" / "key.pem").touch(mode=0o600)
    return folder / "tls"


def test_keys_are_found_at_any_depth_of_launches_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Slurm that does not answer is a line, and keys are cleaned all the same."""
    ours = launched(tmp_path / "runs" / "demo" / "results" / "workers")
    elsewhere = launched(tmp_path / "runs" / "workers-b", host="login07")
    others = launched(tmp_path / "runs" / "server")
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent))
    done = sml("jobs", "--clean", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "sml jobs: Slurm's squeue says: no controller; only keys are looked for"
    ]
    assert (ours.exists(), elsewhere.exists(), others.exists()) == (False, True, True)
    assert records.Run(ours.parent).status() == "stopped"
    assert "ran on login07" in done.stdout

    squeue.unlink()  # a machine without Slurm
    named = sml("jobs", "--clean", "runs/workers-b", cwd=tmp_path)
    assert (named.returncode, named.stdout.splitlines()[-1]) == (0, "cleaned 1 of 1")
    assert not elsewhere.exists()
    unknown = sml("jobs", "--clean", "runs/server", cwd=tmp_path)
    assert (unknown.returncode, others.exists()) == (2, True)
    assert "no launch listed here is called runs/server" in unknown.stderr


def test_help_is_instant_and_teaches(tmp_path: Path) -> None:
    before = time.monotonic()
    text = sml("--help").stdout
    assert time.monotonic() - before < 1
    for command in ("sml doctor", "sml run notebooks/", "sml jobs"):
        assert command in text
    assert "exit codes:" in sml("run", "--help").stdout
    probe = "import sys, sml_kernel.cli; print({'torch', 'dask', 'papermill'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert loaded.stdout.strip() == "set()"


def test_an_unknown_command_lists_the_known() -> None:
    wrong = sml("rnu")
    assert wrong.returncode == 2
    assert all(command in wrong.stderr for command in ("doctor", "run", "jobs"))
