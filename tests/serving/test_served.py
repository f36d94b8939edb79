"""A real Triton on this machine: what it answers, what it refuses, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from served_models import servable
from torch import nn

from sml_kernel import records, serving
from sml_kernel.serving import local, repository

END_S = 15.0  # within which everything of a server must be gone: its grace is 3 s
ROOT = Path(__file__).parents[2]


class Weighted(nn.Module):
    """Two inputs; three outputs: a number a row, an integer a row, and booleans."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.inner(x)
        return {"mean": y.mean(1) * weight, "count": (y > 0).sum(1), "above": y > 0}


@pytest.fixture(scope="module", autouse=True)
def _triton() -> None:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "run"


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[serving.Service]:
    torch.manual_seed(0)
    models = {
        "net": Weighted(),
        "twice": servable("twice", "honest", run="runs/twice"),
    }
    examples = {"net": (torch.zeros(1, 7), torch.ones(1))}
    with serving.start(models, examples=examples, folder=folder, progress=False) as started:
        yield started


def shared_memory() -> list[str]:
    return [path.name for path in Path("/dev/shm").glob("sml-serving-*")]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Those that name the folder in their command line: guardian, server, model processes."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def until(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + END_S
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


def gone(processes: list[psutil.Process]) -> bool:
    return not [each for each in processes if each.is_running() and each.status() != "zombie"]


@pytest.mark.parametrize("transport", ["grpc", "http"])
@pytest.mark.parametrize("rows", [1, 17, 1024])
def test_served_is_direct(
    service: serving.Service, folder: Path, transport: str, rows: int
) -> None:
    torch.manual_seed(0)
    net = Weighted()
    generator = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, 7, generator=generator), torch.rand(rows, generator=generator)
    with torch.no_grad():
        direct = net(x, weight)
    mean, count, above = service.infer("net", (x, weight), transport=transport)
    assert np.abs(mean - direct["mean"].numpy()).max() <= 1e-6
    np.testing.assert_array_equal(count, direct["count"].numpy())
    np.testing.assert_array_equal(above, direct["above"].numpy())


def test_a_script_with_tritonclient_alone_gets_the_same(service: serving.Service) -> None:
    from tritonclient import http

    client = http.InferenceServerClient(service.transports["http"].url)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = http.InferInput("input_0", [2, 3], "FP32")
    given.set_data_from_numpy(x)
    got = client.infer("twice", [given]).as_numpy("output")
    np.testing.assert_array_equal(got, service.infer("twice", x))
    client.close()


def test_an_answer_says_which_model_and_run_it_is_of(
    service: serving.Service, folder: Path
) -> None:
    answer = service.infer("twice", torch.ones(1, 3))
    hashes = records.Run(folder).provenance()["hashes"]
    assert (answer.served.hash, answer.served.run) == (hashes["twice"], "runs/twice")
    assert answer.served.version == "1"


def test_what_was_checked_at_the_start_is_recorded(service: serving.Service, folder: Path) -> None:
    rows = records.read(folder, "check")
    assert sorted(zip(rows["model"], rows["transport"], strict=True)) == [
        (model, transport) for model in ("net", "twice") for transport in ("grpc", "http")
    ]
    assert (rows["max_difference"] <= 1e-6).all()
    assert set(records.read(folder, "load")["model"]) == {"net", "twice"}


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_errors_have_names(service: serving.Service, transport: str) -> None:
    with pytest.raises(serving.UnknownModelError, match="ready: net, twice"):
        service.infer("nat", np.zeros((1, 7)), transport=transport)
    with pytest.raises(serving.InputError, match="is float32, not float64"):
        service.infer("twice", np.zeros((1, 3)), transport=transport)
    with pytest.raises(serving.ModelError, match="nan in column 0"):
        service.infer("twice", np.full((1, 3), np.nan, "f4"), transport=transport)
    assert service.infer("twice", np.ones((1, 3), "f4"), transport=transport).tolist() == [[2] * 3]


def test_requests_at_once_get_their_own_answers_and_one_that_fails_fails_alone(
    service: serving.Service,
) -> None:
    def ask(i: int) -> float | str:
        try:
            value = np.nan if i % 10 == 0 else float(i)
            return float(service.infer("twice", np.full((1, 3), value, "f4"))[0, 0])
        except serving.ModelError:
            return "failed"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(200)))
    assert found == ["failed" if i % 10 == 0 else 2.0 * i for i in range(200)]


def test_another_finds_it_by_its_folder_and_only_its_owner_may(
    service: serving.Service, folder: Path
) -> None:
    assert service.server is not None
    discovery = folder / "server.json"
    assert stat.S_IMODE(discovery.stat().st_mode) == 0o600
    (said,) = json.loads(discovery.read_text())["places"]
    for where in (folder, said["grpc"], f"http://{said['http']}"):
        with serving.connect(where) as other:
            assert other.models() == ["net", "twice"]
    listening = {
        each.laddr.ip.removeprefix("::ffff:")  # IPv4, as an IPv6 socket names it
        for each in psutil.Process(service.server.pid).net_connections()
        if each.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    with pytest.raises(serving.ServerGoneError, match="is the server up"):
        serving.connect("127.0.0.1:9")
    with pytest.raises(serving.ServerGoneError, match=r"has no server\.json"):
        serving.connect(folder.parent)


def test_a_model_that_does_not_load_says_why_and_the_others_go_on(
    service: serving.Service, folder: Path
) -> None:
    assert service.server is not None
    serving.write(folder / "repository", [servable("bad", "failing")])
    with pytest.raises(serving.StartError, match=r"'bad' does not load(.|\n)*this one never loads"):
        service.server.load("bad")
    assert service.infer("twice", np.ones((1, 3), "f4")).tolist() == [[2] * 3]
    assert service.models() == ["net", "twice"]


def test_a_killed_server_leaves_nothing_and_says_so(service: serving.Service, folder: Path) -> None:
    """The last that uses the service."""
    server = service.server
    assert server is not None
    belonging = [*family(psutil.Process(server.process.pid))]
    assert len(belonging) == 4  # guardian, server, and a process a model
    os.kill(server.pid, signal.SIGKILL)
    assert until(lambda: not server.alive())
    assert gone(belonging)
    assert not list(Path("/dev/shm").glob(f"{server._prefix}*"))
    for transport in ("grpc", "http"):
        with pytest.raises(serving.ServerGoneError, match="start it again"):
            service.infer("twice", np.ones((1, 3), "f4"), transport=transport)
    service.close()
    assert records.Run(folder).status() == "failed"
    assert not (folder / "server.json").exists()


#: As most models of Triton are written. The wheel's backend then repeats an array's first element
#: under NumPy 2.
THROUGH_NUMPY = """
from sml_kernel.serving import executor

class TritonPythonModel(executor.TritonPythonModel):
    def _output(self, name, value):
        return self._backend.Tensor(name, value.numpy())
"""


def test_a_server_that_corrupts_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_MODEL", THROUGH_NUMPY)
    with pytest.raises(serving.MismatchError, match="corrupts arrays"):
        serving.start(
            {"twice": servable("twice", "honest")}, folder=tmp_path / "run", progress=False
        )
    assert not processes_of(tmp_path)
    assert records.Run(tmp_path / "run").status() == "failed"


def test_a_port_that_was_taken_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = local._free_place
    with socket.create_server((local.ADDRESS, 0)) as other:
        taken = "{}:{}".format(*other.getsockname())
        places = iter([replace(free("first"), http=taken), free("second")])
        monkeypatch.setattr(local, "_free_place", lambda _: next(places))
        server = local.LocalServer(serving.install_triton(), tmp_path, threads=1, timeout_s=60)
        server.close()
    assert server.place.server_id == "second"


STARTED = """
import sys, time
from served_models import servable
from sml_kernel import serving
with serving.start({"twice": servable("twice", "honest")}, folder=sys.argv[1], progress=False):
    print("up", flush=True)
    time.sleep(600)
"""


def test_a_killed_notebook_leaves_nothing(tmp_path: Path) -> None:
    before = set(shared_memory())
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    notebook = subprocess.Popen(
        [sys.executable, "-c", STARTED, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert notebook.stdout is not None
        assert notebook.stdout.readline() == b"up\n"
        belonging = family(psutil.Process(notebook.pid))[1:]
        assert len(belonging) == 3
        assert set(shared_memory()) - before
    finally:
        notebook.kill()
        notebook.communicate()
    assert until(lambda: gone(belonging))
    assert until(lambda: not set(shared_memory()) - before)
    assert not (tmp_path / "run" / "server.json").exists()
    assert records.Run(tmp_path / "run").status() == "lost"
