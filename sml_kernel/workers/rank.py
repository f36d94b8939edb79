"""What runs inside the fresh process of one rank: ``python -m sml_kernel.workers.rank``.

The process talks to whoever started it over two pipes, in frames of a kind and a length:

=========  =====  ==========================================================================
pipe       kind   meaning
=========  =====  ==========================================================================
stdin      J      the `Job`, pickled: first of all
stdin      S      where rank 0 serves the rendezvous; to every rank but 0
stdin      G      all ranks have returned: leave
out        P      port at which rank 0 serves the rendezvous; the system chose it, so no race
out        R      the function returned; its result, by cloudpickle
out        E      it raised; type and message, and the traceback, by pickle
=========  =====  ==========================================================================

A rank that has raised keeps its sockets open until it is ended: its peers wait instead of raising
errors of their own, so that the first traceback is the one that matters. The end of stdin means
that the starter is gone; the rank then ends its whole process group. Linux does the same at once
(``PR_SET_PDEATHSIG``), also while the rank holds the interpreter's lock.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch.distributed

_HEADER = struct.Struct(">cQ")
_PR_SET_PDEATHSIG = 1
Inbox = queue.Queue  # of (kind, payload)


@dataclass(frozen=True)
class Seat:
    """A rank's place in its gang.

    Attributes
    ----------
    rank, ranks
        Number of this rank, and of all.
    local_rank, local_ranks
        The same among the ranks of this host.
    host, address
        Name of the host, and the IP address by which the other ranks reach it.
    threads
        Threads of OpenMP, BLAS and torch in this rank.
    worker
        Address of the Dask worker that starts the rank, None: the calling process does.
    """

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    host: str
    address: str
    threads: int
    worker: str | None = None


@dataclass(frozen=True)
class Job:
    """What every rank is to do.

    Attributes
    ----------
    function
        By cloudpickle.
    arguments
        How many of ``(rank, ranks)`` it takes.
    backend
        ``"gloo"``, ``"nccl"``, ``"auto"``, or None: no process group and no torch.
    path
        The caller's ``sys.path``, so that its own modules are found.
    """

    function: bytes
    arguments: int
    backend: str | None
    path: tuple[str, ...]


def frame(kind: bytes, payload: bytes) -> bytes:
    """The frame's header, to be sent ahead of its payload."""
    return _HEADER.pack(kind, len(payload))


def unpack(header: bytes) -> tuple[bytes, int]:
    """Kind and length of a frame from its header of `HEADER_BYTES`."""
    return _HEADER.unpack(header)


HEADER_BYTES = _HEADER.size


def main() -> None:
    """Be one rank. Arguments: the starter's process id, and the descriptor for results."""
    _die_with(int(sys.argv[1]))
    out = os.fdopen(int(sys.argv[2]), "wb")
    os.set_inheritable(out.fileno(), False)
    del sys.argv[1:]  # they are not the function's
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()  # a crash in compiled code shows where
    faulthandler.register(
        signal.SIGUSR1, all_threads=False
    )  # so does a rank that hangs past its time
    inbox = _listen()
    seat, job = pickle.loads(inbox.get()[1])
    sys.path += [entry for entry in job.path if entry not in sys.path]
    kind, payload = _outcome(seat, job, inbox, out)
    _send(out, kind, payload)
    inbox.get()  # until all have returned; if one fails, this process is ended here
    _leave_group(job)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking the interpreter apart after torch takes 2 s, and changes nothing


def _outcome(seat: Seat, job: Job, inbox: Inbox, out: IO[bytes]) -> tuple[bytes, bytes]:
    try:
        if job.backend is not None:
            _join_group(seat, job.backend, inbox, out)
        function: Callable[..., Any] = pickle.loads(job.function)
        result = function(*(seat.rank, seat.ranks)[: job.arguments])
        return b"R", _dumps(result)
    except BaseException as error:  # SystemExit too: a rank has no other way to tell
        own_frame = error.__traceback__
        text = "".join(
            traceback.format_exception(error.with_traceback(own_frame and own_frame.tb_next))
        )
        last = "".join(traceback.format_exception_only(error)).strip()
        return b"E", pickle.dumps((last, text))


def _join_group(seat: Seat, backend: str, inbox: Inbox, out: IO[bytes]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(seat.threads)
    if seat.rank == 0:
        store = _serve_rendezvous(seat.address)
        _send(out, b"P", str(store.port).encode())
    else:
        address, port = inbox.get()[1].decode().rsplit(" ", 1)
        store = dist.TCPStore(address, int(port), is_master=False, wait_for_workers=False)
    device = _own_device(seat, store) if backend != "gloo" else None
    if backend == "auto":
        backend = "gloo" if device is None else "nccl"
    if backend == "nccl" and device is None:
        raise RuntimeError(
            f"nccl needs a GPU of its own for each of {seat.ranks} ranks, which is not so here: "
            "use fewer ranks, more GPUs, or backend='gloo'"
        )
    if device is not None:
        torch.cuda.set_device(device)
    dist.init_process_group(backend, store=store, rank=seat.rank, world_size=seat.ranks)


def _serve_rendezvous(address: str) -> torch.distributed.TCPStore:
    """A store at a port that the system chose, on this address alone.

    Left to itself a TCPStore listens on every interface of the host, and asks nobody who he is.
    """
    from torch.distributed import TCPStore

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, backlog=socket.SOMAXCONN)
    port = listener.getsockname()[1]
    return TCPStore(
        address,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),  # the store closes it
    )


def _own_device(seat: Seat, store: torch.distributed.Store) -> int | None:
    """Index of the GPU that only this rank uses; None unless every rank has one.

    A worker that is pinned to a GPU sees no other, so its rank takes index 0.
    """
    import torch

    count = torch.cuda.device_count()
    index = seat.local_rank % count if count else None
    uuid = "" if index is None else str(torch.cuda.get_device_properties(index).uuid)
    store.set(f"gpu of {seat.rank}", f"{seat.host} {uuid}" if uuid else "none")
    owned = [store.get(f"gpu of {rank}") for rank in range(seat.ranks)]
    return index if b"none" not in owned and len(set(owned)) == seat.ranks else None


def _leave_group(job: Job) -> None:
    """Destroy the process group, now that every result is safe with the caller.

    With a DDP model alive this may deadlock, so collect first; should it hang all the same, the
    starter ends this process after a moment, and nothing is lost.
    """
    if job.backend is None:
        return
    import gc

    import torch.distributed as dist

    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _listen() -> Inbox:
    """Read frames from stdin in a thread; the function sees an empty stdin."""
    descriptor = os.dup(0)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    inbox: Inbox = queue.Queue()

    def listen() -> None:
        with os.fdopen(descriptor, "rb") as stream:
            while header := stream.read(HEADER_BYTES):
                kind, length = unpack(header)
                inbox.put((kind, stream.read(length)))
                if kind == b"G":
                    return
        # SIGTERM, for multiprocessing's resource tracker, which frees /dev/shm, survives it
        os.killpg(0, signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=listen, name="gang-listener", daemon=True).start()
    return inbox


def _send(out: IO[bytes], kind: bytes, payload: bytes) -> None:
    out.write(frame(kind, payload))
    out.write(payload)
    out.flush()


def _dumps(value: Any) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(value)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


if __name__ == "__main__":
    # Under its real name, so that pickles of Seat and Job find the same classes
    from sml_kernel.workers import rank

    rank.main()
