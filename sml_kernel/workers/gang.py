"""Gangs: all-or-none groups of fresh processes, one a rank, for ``torch.distributed`` or without.

::

    def train(rank, ranks): ...

    results = gang.run(train, ranks=4, workers=workers, timeout_s=600)

A fresh process for every rank of every run, because a process that took part in a broken group
never gets its ``c10d`` state back. Dask only says where the processes start: it could neither stop
a thread nor must it run a rank a second time. When one rank fails all are ended, with everything
that they started, and the failure that came first is raised with its rank, host and traceback.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sml_kernel.workers import placement
from sml_kernel.workers.placement import Call
from sml_kernel.workers.rank import Job, Seat
from sml_kernel.workers.supervision import GangError, Supervisor

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["BACKENDS", "Gang", "GangError", "run", "start"]

BACKENDS = ("auto", "gloo", "nccl", None)


class HasClient(Protocol):
    """What `run` needs of workers: their Dask client."""

    @property
    def client(self) -> Client: ...


class Gang:
    """A gang under way, from `start`. A context manager that stops it on leaving."""

    def __init__(self, seats: Sequence[Seat], call: Call, job: Job, timeout_s: float | None):
        self.seats = tuple(seats)
        self._supervisor = Supervisor(seats, call, job, timeout_s)
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        # One thread lives as long as the gang: Linux ends the ranks when the thread that started
        # them ends. A daemon, so that it holds up no interpreter; atexit stops the gang in time.
        self._thread = threading.Thread(target=self._follow, name="gang", daemon=True)
        # Not Thread.join: interrupted by Ctrl-C it takes the thread for ended (CPython 3.11)
        self._ended = threading.Event()
        atexit.register(self.stop)
        self._thread.start()

    def running(self) -> bool:
        """Whether a rank may still be there."""
        return not self._ended.is_set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` ended it before all ranks had returned."""
        return not self.running() and self._error is None and None in self._supervisor.outcomes

    def wait(self, timeout_s: float | None = None) -> list[Any]:
        """The result of each rank, by rank; of a stopped gang None for those that had none yet.

        Parameters
        ----------
        timeout_s
            How long to wait, None: until it ends. Waiting is all that this limits.

        Raises
        ------
        GangError
            A rank failed; by now all ranks are gone.
        TimeoutError
            It runs on; call again, or `stop` it.
        """
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"the gang still runs after {timeout_s} s; wait again, or stop() it")
        if self._error is not None:
            raise self._error.with_traceback(None)  # frames of our thread say nothing here
        return [
            outcome and outcome.result and pickle.loads(outcome.result)
            for outcome in self._supervisor.outcomes
        ]

    def stop(self) -> None:
        """End all ranks at once; return when they are gone. Harmless when they are already."""
        try:
            self._loop.call_soon_threadsafe(self._supervisor.asked_to_stop.set)
        except RuntimeError:  # the loop is closed: it has ended
            return
        self._ended.wait()

    def __enter__(self) -> Gang:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running() else "failed" if self._error else "ended"
        hosts = ", ".join(dict.fromkeys(seat.host for seat in self.seats))
        return f"Gang({len(self.seats)} ranks on {hosts}: {'stopped' if self.stopped else state})"

    def _follow(self) -> None:
        try:
            self._loop.run_until_complete(self._supervisor.run())
        except BaseException as error:  # for the thread that waits
            self._error = error
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            atexit.unregister(self.stop)
            self._ended.set()


def run(
    function: Callable[..., Any],
    ranks: int,
    *,
    workers: HasClient | None = None,
    timeout_s: float | None = None,
    backend: str | None = "auto",
    threads: int | None = None,
) -> list[Any]:
    """Call a function once in each of several fresh processes, all or none.

    Parameters
    ----------
    function
        Called as ``function(rank, ranks)``; as ``function(rank)`` or ``function()`` if it takes
        no more. More arguments travel by `functools.partial` or a closure, pickled by value
        through a pipe, never by a file. A parameter with a default only counts if it is called
        ``rank`` or ``ranks``.
    ranks
        How many.
    workers
        What `sml_kernel.launch` gives, or anything with a Dask ``client``: a rank on each of the
        first workers in order of their names, with the GPU of that worker. None: all on this host.
    timeout_s
        From the start of the processes, imports included, until the last rank has returned.
    backend
        Of the ``torch.distributed`` process group, which is there when the function is called and
        is destroyed after all have returned. ``"auto"``: nccl if each rank has a GPU to itself,
        otherwise gloo. None: no group, torch is not imported.
    threads
        Of OpenMP, BLAS and torch in each rank. None: the cores that a rank may use, shared among
        the ranks that may use the same.

    Returns
    -------
    list
        What each rank returned, by rank.

    Raises
    ------
    GangError
        A rank raised, died or was too late; by then all ranks are gone.
    ValueError
        Not so many workers, an unknown backend, a function that cannot be called like that.

    Notes
    -----
    ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE`` are set in each rank. What a
    rank prints appears on stderr behind ``[rank 0]``, with ``workers`` in the log of the worker.
    Ranks end with the process that started them, this one or a worker; workers end with their
    scheduler. Only if that lives in a third process, and this one is killed, do ranks run on.
    """
    gang = start(
        function, ranks, workers=workers, timeout_s=timeout_s, backend=backend, threads=threads
    )
    with gang:
        return gang.wait()


def start(
    function: Callable[..., Any],
    ranks: int,
    *,
    workers: HasClient | None = None,
    timeout_s: float | None = None,
    backend: str | None = "auto",
    threads: int | None = None,
) -> Gang:
    """The same as `run`, but return at once; see `Gang.wait`, `Gang.running` and `Gang.stop`."""
    import cloudpickle

    if ranks < 1:
        raise ValueError(f"a gang has at least 1 rank, not {ranks}")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; known: auto, gloo, nccl, None")
    job = Job(cloudpickle.dumps(function), _arguments(function), backend, tuple(sys.path))
    if workers is None:
        return Gang(placement.local(ranks, threads), placement.call_here, job, timeout_s)
    seats = placement.on_workers(workers.client, ranks, threads)
    return Gang(seats, placement.call_through(workers.client), job, timeout_s)


def _arguments(function: Callable[..., Any]) -> int:
    """How many of ``(rank, ranks)`` the function takes."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some compiled functions have none
        return 2
    parameters = signature.parameters.values()
    if any(each.kind == each.VAR_POSITIONAL for each in parameters):
        return 2
    taken = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        and (each.default is each.empty or each.name in ("rank", "ranks"))
    ]
    try:
        signature.bind(*range(min(len(taken), 2)))
    except TypeError as error:
        raise ValueError(
            f"the function is called as function(rank, ranks), but its signature is {signature} "
            f"({error}); bind what else it needs with functools.partial"
        ) from None
    return len(taken)
