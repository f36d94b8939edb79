"""Load on a service: many requests at once, each with its times.

In a closed loop so many callers each ask again as soon as they are answered: what the service gives
is found. In an open loop requests arrive at a rate whether or not the service keeps up, as those of
many users do, and a request's time counts from the moment at which it was due: a client that waits
before it asks would hide how long its users wait ("coordinated omission").

One Python process asks only so much. So callers may also be processes: this module, run as a
program, is one, which is told what to do on stdin as JSON and says what it measured on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sml_kernel.serving.discovery import Discovery
from sml_kernel.serving.errors import ModelError

if TYPE_CHECKING:
    from sml_kernel.serving.client import Service

_WARM_UP_CALLS = 2  # of each caller: its connection is open and the model's memory is in use
_IN_FLIGHT = 512  # requests of an open loop at once, at most; later ones wait, and it is counted


@dataclass(frozen=True)
class Task:
    """What one process is to do.

    Attributes
    ----------
    name, transport
        What is asked, and how.
    duration_s
        New requests begin for so long.
    concurrency
        Callers of a closed loop.
    rate
        Requests a second of an open loop, at random moments (Poisson); None is a closed loop.
    seed
        Of these moments.
    """

    name: str
    transport: str
    duration_s: float
    concurrency: int = 1
    rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Calls:
    """What was measured.

    Attributes
    ----------
    latencies_s
        [n] of the requests that were answered.
    cpu_s
        [n] of these, the processor time of the thread that asked.
    failed
        Requests that failed, by the name of their error.
    throughput_s
        Answers a second: of a closed loop those within the time that was asked for, as callers
        end one by one behind it; of an open loop all.
    elapsed_s
        From the first request to the last answer.
    process_cpu_s
        Processor time of the whole process in that time.
    """

    latencies_s: np.ndarray
    cpu_s: np.ndarray
    failed: dict[str, int]
    throughput_s: float
    elapsed_s: float
    process_cpu_s: float


def call(
    service: Service,
    task: Task,
    inputs: Sequence[dict[str, np.ndarray]],
    begin: Callable[[], None] = lambda: None,
) -> Calls:
    """Do a task from this process; `begin` is called when all callers have warmed up."""
    calls = _Recorder(service, task, inputs)
    if task.rate is None:
        elapsed_s, cpu_s = _closed(calls, task, begin)
    else:
        elapsed_s, cpu_s = _open(calls, task, task.rate, begin)
    latencies, cpu, ends = np.array(calls.answered).reshape(-1, 3).T
    within_s = elapsed_s if task.rate else task.duration_s
    soon = np.count_nonzero(ends <= calls.start + within_s)
    return Calls(latencies, cpu, dict(calls.failed), soon / within_s, elapsed_s, cpu_s)


class _Recorder:
    def __init__(
        self, service: Service, task: Task, inputs: Sequence[dict[str, np.ndarray]]
    ) -> None:
        self.service, self.task, self.inputs = service, task, inputs
        self.start = 0.0
        self.answered: list[tuple[float, float, float]] = []
        self.failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def ask(self, number: int, due: float | None = None) -> None:
        given = self.inputs[number % len(self.inputs)]
        due, cpu = time.perf_counter() if due is None else due, time.thread_time()
        try:
            self.service.infer(self.task.name, given, transport=self.task.transport)
        except Exception as error:  # whatever it is, it is counted
            with self._lock:
                self.failed[type(error).__name__] += 1
        else:
            end = time.perf_counter()
            self.answered.append((end - due, time.thread_time() - cpu, end))

    def warm_up(self, number: int) -> None:
        for each in range(_WARM_UP_CALLS):
            given = self.inputs[(number + each) % len(self.inputs)]
            with contextlib.suppress(ModelError):  # it is counted when its turn comes
                self.service.infer(self.task.name, given, transport=self.task.transport)


def _closed(calls: _Recorder, task: Task, begin: Callable[[], None]) -> tuple[float, float]:
    cpu = 0.0

    def start() -> None:  # in one of the callers, when all have come
        nonlocal cpu
        begin()
        calls.start, cpu = time.perf_counter(), time.process_time()

    barrier = threading.Barrier(task.concurrency, start)

    def caller(number: int) -> None:
        try:
            calls.warm_up(number)
        except BaseException:
            barrier.abort()
            raise
        barrier.wait()
        while time.perf_counter() < calls.start + task.duration_s:
            calls.ask(number)
            number += task.concurrency

    with ThreadPoolExecutor(task.concurrency) as pool:
        _raise_first([pool.submit(caller, number) for number in range(task.concurrency)])
    return time.perf_counter() - calls.start, time.process_time() - cpu


def _open(
    calls: _Recorder, task: Task, rate: float, begin: Callable[[], None]
) -> tuple[float, float]:
    calls.warm_up(0)
    gaps = np.random.default_rng(task.seed).exponential(1 / rate, int(2 * rate * task.duration_s))
    arrivals = [each for each in np.cumsum(gaps).tolist() if each < task.duration_s]
    begin()
    calls.start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, calls.start + arrival - time.perf_counter()))
            pool.submit(calls.ask, number, calls.start + arrival)
    return time.perf_counter() - calls.start, time.process_time() - cpu


def _raise_first(jobs: list[Any]) -> None:
    """Raise what a caller raised, rather than that the others were then told to stop."""
    errors = [error for error in (job.exception() for job in jobs) if error is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    if errors:
        raise errors[0]


def call_from_processes(
    found: Discovery,
    tasks: Sequence[Task],
    inputs: Sequence[dict[str, np.ndarray]],
    begin: Callable[[], None] = lambda: None,
) -> list[Calls]:
    """Do each task in a process of its own, all at the same time.

    Raises
    ------
    RuntimeError
        A process ended without an answer; its words are in the error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inputs.safetensors"
        arrays = {f"{i} {k}": v for i, each in enumerate(inputs) for k, v in each.items()}
        save_file(arrays, path)
        processes = [
            _spawn({"discovery": asdict(found), "task": asdict(task), "inputs": str(path)})
            for task in tasks
        ]
        try:
            for process in processes:
                _line(process)  # ready
            begin()
            for process in processes:
                _pipe(process.stdin).write("\n")
                _pipe(process.stdin).flush()
            return [_calls(json.loads(_line(process))) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.communicate()


def _spawn(told: dict[str, Any]) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    _pipe(process.stdin).write(json.dumps(told) + "\n")
    _pipe(process.stdin).flush()
    return process


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _line(process: subprocess.Popen[str]) -> str:
    line = _pipe(process.stdout).readline()
    if not line:
        raise RuntimeError(f"a caller ended:\n{_pipe(process.stderr).read().strip()}")
    return line


def _calls(said: dict[str, Any]) -> Calls:
    latencies, cpu = (np.array(said.pop(name)) for name in ("latencies_s", "cpu_s"))
    return Calls(latencies, cpu, **said)


def main() -> None:
    """Be one of `call_from_processes`."""
    from sml_kernel.serving.connecting import opened
    from sml_kernel.serving.discovery import Place

    told = json.loads(sys.stdin.readline())
    places = tuple(Place(**each) for each in told["discovery"].pop("places"))
    inputs: dict[str, dict[str, np.ndarray]] = {}
    for key, array in load_file(told["inputs"]).items():
        number, _, name = key.partition(" ")
        inputs.setdefault(number, {})[name] = array

    def ready() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    with opened(Discovery(places, **told["discovery"])) as service:
        calls = call(service, Task(**told["task"]), list(inputs.values()), ready)
    said = asdict(calls)
    print(json.dumps({key: v.tolist() if hasattr(v, "tolist") else v for key, v in said.items()}))


if __name__ == "__main__":
    main()
