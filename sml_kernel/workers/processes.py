"""Processes of ranks on this host: start, follow and end one.

The functions are asynchronous and known by a key, so that the caller's own thread and a Dask
worker (through ``client.run``) use the very same ones. None of them raises because of what happens
in the rank: that is an `Outcome`.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from sml_kernel.workers import allocator
from sml_kernel.workers.rank import HEADER_BYTES, Job, Seat, frame, unpack

_TERM_S, _KILL_S, _LEAVE_S = 1.0, 2.0, 3.0
_TAIL_LINES, _LINE_BYTES = 40, 1 << 16
_ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Outcome:
    """How a rank went: `result`, pickled, or the `cause` of its failure.

    Attributes
    ----------
    cause
        ``""``, or ``"raised ValueError: …"``, ``"was killed by signal 9 (SIGKILL)"``, …
    raised
        Whether the failure is an exception, with `traceback`. Otherwise its process is gone.
    output
        The last lines that the rank printed.
    """

    result: bytes | None = None
    cause: str = ""
    raised: bool = False
    traceback: str = ""
    output: str = ""


@dataclass(eq=False)
class _Process:
    seat: Seat
    process: asyncio.subprocess.Process
    frames: asyncio.StreamReader
    transports: list[asyncio.BaseTransport]
    output: asyncio.Task[None]
    tail: deque[str]


_processes: dict[str, _Process] = {}


async def start(key: str, seat: Seat, job: Job) -> None:
    """Start a rank's process in a session of its own, and hand it its job."""
    loop = asyncio.get_running_loop()
    out, rank_out = os.pipe()
    printed, rank_printed = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sml_kernel.workers.rank", str(os.getpid()), str(rank_out)),
            stdin=asyncio.subprocess.PIPE,
            stdout=rank_printed,
            stderr=rank_printed,
            env=_environment(seat),
            pass_fds=(rank_out,),
            start_new_session=True,
        )
    except BaseException:
        os.close(out)
        os.close(printed)
        raise
    finally:
        os.close(rank_out)
        os.close(rank_printed)
    frames, frames_transport = await _reader(loop, out)
    lines, lines_transport = await _reader(loop, printed)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    forward = asyncio.create_task(_forward(seat.rank, lines, tail))
    transports = [frames_transport, lines_transport]
    _processes[key] = _Process(seat, process, frames, transports, forward, tail)
    await _tell(_processes[key], b"J", pickle.dumps((seat, job)))


async def port(key: str) -> int | Outcome:
    """The port at which rank 0 serves the rendezvous, or how it failed before it did."""
    found = await _next_frame(_processes[key])
    if isinstance(found, tuple) and found[0] == b"P":
        return int(found[1])
    return await _outcome(_processes[key], found)


async def finish(key: str, rendezvous: str | None) -> Outcome:
    """Tell where the rendezvous is (``"address port"``), and wait for the rank's outcome."""
    rank = _processes[key]
    if rendezvous is not None and rank.seat.rank > 0:
        await _tell(rank, b"S", rendezvous.encode())
    return await _outcome(rank, await _next_frame(rank))


async def where(key: str) -> str:
    """What the rank is doing: the stacks of its Python threads, also while it holds the lock."""
    rank = _processes.get(key)
    if rank is None or rank.process.returncode is not None:
        return ""
    seen = len(rank.tail)
    os.kill(rank.process.pid, signal.SIGUSR1)
    await asyncio.sleep(0.3)
    return "\n".join(list(rank.tail)[seen if len(rank.tail) < _TAIL_LINES else -_TAIL_LINES // 2 :])


async def end(key: str, kindly: bool) -> None:
    """End a rank with everything it started, and free what it held here.

    Parameters
    ----------
    kindly
        All ranks have returned: give this one a moment to leave its process group.
    """
    rank = _processes.pop(key, None)
    if rank is None:
        return
    if kindly:
        await _tell(rank, b"G", b"")
        await _exited(rank, _LEAVE_S)
    # SIGTERM first: multiprocessing's resource tracker survives it, and frees /dev/shm
    if not await _group_gone(rank, signal.SIGTERM, _TERM_S):
        await _group_gone(rank, signal.SIGKILL, _KILL_S)
    await _exited(rank, _KILL_S)
    await asyncio.wait([rank.output], timeout=0.2)
    rank.output.cancel()
    if rank.process.stdin is not None:
        rank.process.stdin.close()
    for transport in rank.transports:
        transport.close()


async def _outcome(rank: _Process, found: tuple[bytes, bytes] | None) -> Outcome:
    if found is None:
        code = await rank.process.wait()
        await asyncio.wait([rank.output], timeout=0.2)
        return Outcome(cause=_cause(code), output="\n".join(rank.tail))
    kind, payload = found
    if kind == b"R":
        return Outcome(result=payload)
    last, text = pickle.loads(payload)
    return Outcome(cause=f"raised {last}", raised=True, traceback=text, output="\n".join(rank.tail))


async def _next_frame(rank: _Process) -> tuple[bytes, bytes] | None:
    """The next frame, or None when the process ended without a whole one.

    A child that the rank left behind may keep the pipe open, so its end is not waited for: what
    a process wrote before it ended is there to be read at once.
    """
    reading = asyncio.create_task(_read_frame(rank.frames))
    exiting = asyncio.create_task(rank.process.wait())
    try:
        await asyncio.wait([reading, exiting], return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            await asyncio.wait([reading], timeout=0.2)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()
        exiting.cancel()


async def _read_frame(frames: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    try:
        kind, length = unpack(await frames.readexactly(HEADER_BYTES))
        return kind, await frames.readexactly(length)
    except asyncio.IncompleteReadError:
        return None


async def _tell(rank: _Process, kind: bytes, payload: bytes) -> None:
    assert rank.process.stdin is not None
    try:
        rank.process.stdin.write(frame(kind, payload))
        rank.process.stdin.write(payload)
        await rank.process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has ended, which the wait for its outcome reports


async def _forward(rank: int, lines: asyncio.StreamReader, tail: deque[str]) -> None:
    """Keep the last lines, and pass each on to stderr (of a worker: its log) with the rank."""
    rest = b""
    while chunk := await lines.read(_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            whole, rest = [*whole, rest], b""
        for line in whole:
            tail.append(line.decode(errors="replace"))
            print(f"[rank {rank}] {tail[-1]}", file=sys.stderr)
    if rest:
        tail.append(rest.decode(errors="replace"))
        print(f"[rank {rank}] {tail[-1]}", file=sys.stderr)


async def _group_gone(rank: _Process, signum: int, timeout_s: float) -> bool:
    """Signal the rank's process group; whether all of it is gone in time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        os.killpg(rank.process.pid, signum)
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
            os.killpg(rank.process.pid, 0)
    except ProcessLookupError:
        return True
    return False


async def _exited(rank: _Process, timeout_s: float) -> None:
    waiting = asyncio.create_task(rank.process.wait())
    await asyncio.wait([waiting], timeout=timeout_s)
    waiting.cancel()


async def _reader(
    loop: asyncio.AbstractEventLoop, descriptor: int
) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader(limit=1 << 20)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport


def _environment(seat: Seat) -> dict[str, str]:
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(seat.threads)
    )
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **threads, **allocator.RANK, "PYTHONPATH": path}
    environment |= {"RANK": str(seat.rank), "WORLD_SIZE": str(seat.ranks)}
    environment |= {"LOCAL_RANK": str(seat.local_rank), "LOCAL_WORLD_SIZE": str(seat.local_ranks)}
    interface = interface_of(seat.address)
    if interface is not None:  # else gloo asks for the host's name, which may lead elsewhere
        environment.setdefault("GLOO_SOCKET_IFNAME", interface)
        environment.setdefault("NCCL_SOCKET_IFNAME", interface)
    return environment


def interface_of(address: str) -> str | None:
    """Name of the network interface of this host that has an IP address, None: no such."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None


def _cause(code: int) -> str:
    if code >= 0:
        return f"exited with code {code} before its function returned"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = ", often by the kernel for want of memory" if code == -signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}{hint})"
