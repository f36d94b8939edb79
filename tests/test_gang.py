"""Gangs of real processes, here and on real Dask workers: what they return, and how they end."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sml_kernel.workers import gang

END_S = 10.0  # within which a failure must have ended the whole gang


def ranks_alive() -> list[int]:
    """Process ids of ranks, and of what they left behind: all carry RANK in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "MARK_OF_TEST_GANG" in process.environ() and process.status() != "zombie":
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [pid for pid in found if pid != os.getpid()]


def commands(pids: set[int]) -> list[str]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(" ".join(psutil.Process(pid).cmdline()))
    return found


def orphaned_memory() -> set[str]:
    """Shared memory that no living process has mapped: others on this machine use theirs.

    By inode, for glibc maps a named semaphore before it has that name.
    """
    found = {}
    for path in Path("/dev/shm").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[path.stat().st_ino] = path
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            for line in maps.read_text().splitlines():
                if "/dev/shm/" in line:
                    found.pop(int(line.split()[4]), None)
    return {path.name for path in found.values() if path.exists()}


def held() -> dict[str, set[str]]:
    """Orphaned shared memory; open descriptors, threads and child processes of ours."""
    gc.collect()  # what tests before left as garbage is no leak
    me = psutil.Process()
    for thread in threading.enumerate():
        if thread.name == "gang":  # on its very last line
            thread.join(1)
    return {
        "memory": orphaned_memory(),
        "descriptors": set(map(str, Path("/proc/self/fd").iterdir())),
        "threads": {f"{each.name} {each.ident}" for each in threading.enumerate()},
        "children": {str(each.pid) for each in me.children(recursive=True)},
    }


def grown(before: dict[str, set[str]]) -> dict[str, set[str]]:
    """What there is more of; what tests before left may go, and its numbers be used again."""
    now = held()
    return {name: now[name] - was for name, was in before.items() if len(now[name]) > len(was)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARK_OF_TEST_GANG", "1")
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimpleNamespace]:
    from distributed import Client, LocalCluster

    os.environ["MARK_OF_TEST_GANG"] = "1"  # ranks inherit it from the workers
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as c,
        Client(c) as client,
    ):
        del os.environ["MARK_OF_TEST_GANG"]
        yield SimpleNamespace(client=client, cluster=c)


@pytest.fixture(params=["here", "dask"])
def workers(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    """The same cases here and on Dask workers; afterwards no rank is left, nor a child of one."""
    if request.param == "here":
        where, before = None, set(ranks_alive())
    else:
        where = request.getfixturevalue("cluster")
        where.client.wait_for_workers(2)
        before = set(ranks_alive())  # the workers carry the mark as well
    yield where
    left = commands(set(ranks_alive()) - before)
    assert [line for line in left if "sml_kernel.workers.rank" in line or "sleep" in line] == []


def fails(function: Callable[..., Any], workers: Any, **how: Any) -> tuple[gang.GangError, float]:
    started = time.monotonic()
    with pytest.raises(gang.GangError) as caught:
        gang.run(function, 2, workers=workers, **how)
    return caught.value, time.monotonic() - started


# First in this file: a Dask cluster in this process opens and closes connections as it likes.


def test_two_hundred_gangs_leak_nothing(folder: Path) -> None:
    gang.run(lambda: 0, 2, backend=None)  # what the first one imports stays open
    before = held()
    for number in range(200):
        if number % 20 == 7:
            fails(lambda rank: os.kill(os.getpid(), 9) if rank else None, None, backend=None)
        else:
            assert gang.run(lambda rank, n=number: n + rank, 2, backend=None) == [
                number,
                number + 1,
            ]
    assert grown(before) == {}


def test_ten_gangs_with_torch_leak_nothing(folder: Path) -> None:
    def total(rank: int) -> float:
        import torch
        import torch.distributed as dist

        value = torch.ones(1)
        dist.all_reduce(value)
        return value.item()

    before = held()
    for _ in range(10):
        assert gang.run(total, 2, timeout_s=60) == [2.0, 2.0]
    assert grown(before) == {}


def test_results_come_by_rank_with_as_many_arguments_as_taken(workers: Any) -> None:
    offset = 5
    assert gang.run(
        lambda rank, ranks: offset + rank * ranks, 2, workers=workers, backend=None
    ) == [
        5,
        7,
    ]
    assert gang.run(lambda rank: rank, 2, workers=workers, backend=None) == [0, 1]
    assert gang.run(lambda: os.environ["LOCAL_RANK"], 2, workers=workers, backend=None) == [
        "0",
        "1",
    ]
    power = functools.partial(pow, 2)
    assert gang.run(lambda rank, base=3: power(rank + base), 2, workers=workers, backend=None) == [
        8,
        16,
    ]


def test_all_reduce(workers: Any) -> None:
    def total(rank: int, ranks: int) -> tuple[float, str, int]:
        import torch
        import torch.distributed as dist

        value = torch.tensor([float(rank + 1)])
        dist.all_reduce(value)
        return value.item(), dist.get_backend(), torch.get_num_threads()

    backend = "gloo"
    got = gang.run(total, 2, workers=workers, timeout_s=60, backend=backend, threads=1)
    assert got == [(3.0, "gloo", 1), (3.0, "gloo", 1)]


def test_a_gang_listens_on_no_address_but_its_own(workers: Any) -> None:
    """Rendezvous and gloo ask nobody who he is: no other interface may lead to them."""

    def listening(rank: int) -> list[str]:
        import torch.distributed as dist

        dist.barrier()  # all have opened what they open
        connections = psutil.Process().net_connections("inet")
        found = [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]
        dist.barrier()
        return found

    first, second = gang.run(listening, 2, workers=workers, timeout_s=60, backend="gloo")
    assert set(first) | set(second) == {"127.0.0.1"}


def test_parameters_are_equal_after_ddp_training(folder: Path) -> None:
    def train(rank: int) -> list[float]:
        import torch

        torch.manual_seed(rank)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.rand(8, 4)).square().mean().backward()
            optimizer.step()
        keep.append(model)  # alive while the group is destroyed
        return model.module.weight.flatten().tolist()

    keep: list[Any] = []
    first, second = gang.run(train, 2, timeout_s=60)
    assert first == second


def test_a_rank_that_raises_ends_all(workers: Any) -> None:
    def unlucky(rank: int) -> None:
        import torch.distributed as dist

        if rank == 1:
            raise ValueError("bad luck")
        dist.barrier()  # waits for a peer that never comes

    error, _ = fails(unlucky, workers, timeout_s=60)
    assert error.rank == 1
    assert error.cause == "raised ValueError: bad luck"
    assert 'raise ValueError("bad luck")' in error.traceback
    assert "rank 1 on" in str(error)
    assert "dist.barrier" not in str(error)


def test_a_rank_that_is_killed_ends_all(workers: Any) -> None:
    def killed(rank: int) -> None:
        import torch.distributed as dist

        if rank == 1:
            subprocess.Popen(["sleep", "600"])
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    error, _ = fails(killed, workers, timeout_s=60)
    assert (error.rank, error.cause.split("(")[0]) == (1, "was killed by signal 9 ")


def test_a_rank_that_hangs_ends_all_and_shows_where(workers: Any) -> None:
    def hang_in_here(rank: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "600"])
        if rank == 1:
            time.sleep(600)

    error, seconds = fails(hang_in_here, workers, timeout_s=2, backend=None)
    assert error.rank == 1
    assert "timed out" in error.cause
    assert "hang_in_here" in error.traceback
    assert seconds < 2 + END_S


def test_stop_is_no_error(workers: Any) -> None:
    def first_returns(rank: int) -> str:
        if rank == 1:
            time.sleep(600)
        return "done"

    under_way = gang.start(first_returns, 2, workers=workers, backend=None)
    with pytest.raises(TimeoutError, match="still runs"):
        under_way.wait(timeout_s=2)
    assert under_way.running()
    under_way.stop()
    assert (under_way.running(), under_way.stopped) == (False, True)
    assert under_way.wait() == ["done", None]


def test_a_stop_while_processes_start_leaves_none(workers: Any) -> None:
    for delay_s in (0, 0.002, 0.01, 0.03, 0.1):
        with gang.start(lambda: time.sleep(600), 2, workers=workers, backend=None):
            time.sleep(delay_s)


def test_keyboard_interrupt_ends_all(workers: Any, folder: Path) -> None:
    def wait(rank: int) -> None:
        (folder / str(rank)).touch()
        time.sleep(600)

    def interrupt() -> None:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        gang.run(wait, 2, workers=workers, backend=None)
    thread.join()


def test_a_killed_worker_ends_all(cluster: Any, folder: Path) -> None:
    def kill_my_worker(rank: int) -> None:
        if rank == 1:
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    cluster.client.wait_for_workers(2)
    before = set(ranks_alive())
    error, seconds = fails(kill_my_worker, cluster, backend=None, timeout_s=60)
    assert error.rank == 1
    assert "lost with its worker tcp://" in error.cause
    assert seconds < END_S
    deadline = time.monotonic() + 5
    while any("workers.rank" in line for line in commands(set(ranks_alive()) - before)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


CALLER = """
import ctypes, os, sys, time
from pathlib import Path
from sml_kernel.workers import gang

marks = Path(sys.argv[1])

def wait(rank):
    (marks / str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(600)  # in compiled code that keeps the interpreter's lock

if __name__ == "__main__":
    workers = None
    if sys.argv[2] == "dask":
        from types import SimpleNamespace
        from distributed import Client
        workers = SimpleNamespace(client=Client(n_workers=2, threads_per_worker=1, processes=True,
                                                dashboard_address=None))
    under_way = gang.start(wait, 2, backend=None, workers=workers)
    if sys.argv[3] == "leave":
        while len(list(marks.iterdir())) < 2:
            time.sleep(0.01)
    else:
        under_way.wait()
"""


@pytest.mark.parametrize("where", ["here", "dask"])
@pytest.mark.parametrize("way", ["kill", "leave"])
def test_ranks_end_with_their_caller(where: str, way: str, folder: Path) -> None:
    script, marks = folder / "caller.py", folder / "marks"
    script.write_text(CALLER)
    marks.mkdir()
    caller = subprocess.Popen([sys.executable, str(script), str(marks), where, way])
    while len(list(marks.iterdir())) < 2:
        assert caller.poll() is None
        time.sleep(0.05)
    if way == "kill":
        caller.kill()
    caller.wait(timeout=20)
    pids = [int(path.name) for path in marks.iterdir()]
    deadline = time.monotonic() + END_S
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, "ranks outlive their caller"
        time.sleep(0.05)


def test_shared_memory_of_an_ended_rank_is_freed(folder: Path) -> None:
    def hold() -> None:
        from multiprocessing.shared_memory import SharedMemory

        (folder / "name").write_text(SharedMemory(create=True, size=1000).name)
        time.sleep(600)

    with gang.start(hold, 1, backend=None):
        while not (folder / "name").exists() or not (folder / "name").read_text():
            time.sleep(0.01)
        assert Path("/dev/shm", (folder / "name").read_text()).exists()
    assert not Path("/dev/shm", (folder / "name").read_text()).exists()


def test_what_a_rank_prints_is_forwarded(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gang.run(lambda rank: print(f"hello from {rank}\nand more"), 2, backend=None)
    assert {"[rank 0] hello from 0", "[rank 1] and more"} <= set(capfd.readouterr().err.split("\n"))


def test_ranks_on_workers_of_this_machine(folder: Path) -> None:
    """As `sml.launch` starts them: Dask speaks TLS, the gang finds the hosts all the same."""
    import sml_kernel as sml

    def total(rank: int, ranks: int) -> float:
        import torch
        import torch.distributed as dist

        value = torch.tensor([float(rank + 1)])
        dist.all_reduce(value)
        return value.item()

    with sml.launch("laptop", cpus=2, folder=folder / "run") as workers:
        workers.wait(timeout_s=30)
        assert gang.run(total, 2, workers=workers, timeout_s=60) == [3.0, 3.0]


def test_a_large_closure_and_result_travel(folder: Path) -> None:
    data = os.urandom(30_000_000)
    assert gang.run(lambda: data, 2, backend=None) == [data, data]


@pytest.mark.parametrize("code", [0, 3])
def test_a_rank_that_leaves_early_is_a_failure(code: int, folder: Path) -> None:
    def leave() -> None:
        print("last words")
        os._exit(code)

    error, _ = fails(leave, None, backend=None)
    assert error.cause == f"exited with code {code} before its function returned"
    assert "last words" in str(error)


def test_what_cannot_run_is_refused_before_it_starts(cluster: Any) -> None:
    with pytest.raises(ValueError, match=r"functools\.partial"):
        gang.run(lambda rank, ranks, data: None, 2)
    with pytest.raises(ValueError, match="known: auto, gloo, nccl, None"):
        gang.run(lambda: None, 2, backend="mpi")
    with pytest.raises(ValueError, match="at least 1 rank"):
        gang.run(lambda: None, 0)
    with pytest.raises(ValueError, match="5 ranks need 5 workers"):
        gang.run(lambda: None, 5, workers=cluster)


def test_no_torch_without_a_backend(folder: Path) -> None:
    assert gang.run(lambda: "torch" in sys.modules, 2, backend=None) == [False, False]
