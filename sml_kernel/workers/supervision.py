"""What follows a gang's ranks: all return, or the first failure ends them all."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

from sml_kernel.workers import processes
from sml_kernel.workers.placement import Call
from sml_kernel.workers.processes import Outcome
from sml_kernel.workers.rank import Job, Seat

#: Peers of a rank that died may notice, and raise, before its starter does.
_GRACE_S = 0.5
_END_S = 7.0


class GangError(RuntimeError):
    """A gang that was ended because one of its ranks failed.

    Attributes
    ----------
    rank, host
        The rank that failed first, and where it ran.
    cause
        ``raised ValueError: …``, ``was killed by signal 9 (SIGKILL …)``, ``timed out …``,
        ``was lost with its worker …``, ``exited with code …``.
    traceback
        Of that rank; of one that timed out, the stack where it hung. May be empty.
    output
        The last lines that the rank printed.
    """

    def __init__(self, rank: int, host: str, cause: str, traceback: str = "", output: str = ""):
        super().__init__(rank, host, cause, traceback, output)  # so that it can be pickled
        self.rank, self.host, self.cause = rank, host, cause
        self.traceback, self.output = traceback, output

    def __str__(self) -> str:
        text = f"rank {self.rank} on {self.host} {self.cause}; all ranks were ended"
        if self.traceback:
            text += f"\n\nRank {self.rank}:\n{self.traceback.rstrip()}"
        elif self.output:
            text += f"\n\nLast output of rank {self.rank}:\n{self.output.rstrip()}"
        return text


class Supervisor:
    """Follows the ranks of one gang, in the event loop of one thread.

    Attributes
    ----------
    outcomes
        By rank, as they come; None: not yet.
    asked_to_stop
        Set it to end all ranks, without an error.
    """

    def __init__(self, seats: Sequence[Seat], call: Call, job: Job, timeout_s: float | None):
        self._seats, self._call, self._job, self._timeout_s = seats, call, job, timeout_s
        self._key = secrets.token_hex(8)
        self.outcomes: list[Outcome | None] = [None] * len(seats)
        self.asked_to_stop = asyncio.Event()
        self._started: dict[int, asyncio.Task[None]] = {}
        self._lost: set[int] = set()

    async def run(self) -> None:
        """Until all have returned, or were ended; raises `GangError` if one failed."""
        port: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._started = {seat.rank: asyncio.create_task(self._start(seat)) for seat in self._seats}
        ranks = {asyncio.create_task(self._attend(seat, port)): seat for seat in self._seats}
        stop = asyncio.create_task(self.asked_to_stop.wait())
        all_returned = False
        try:
            all_returned = await self._until_ended(ranks, stop)
        finally:
            ends = [self._end(seat, kindly=all_returned) for seat in self._seats]
            await asyncio.gather(*ends)
            await asyncio.wait(ranks, timeout=1)
            for task in (*ranks, stop):
                task.cancel()
            await asyncio.gather(*ranks, stop, return_exceptions=True)

    async def _until_ended(
        self, ranks: dict[asyncio.Task[Outcome], Seat], stop: asyncio.Task[Any]
    ) -> bool:
        """True when all have returned, False when asked to stop; else raises the first failure."""
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        waiting = set(ranks)
        while waiting:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait(
                {*waiting, stop}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if stop in done:
                return False
            if not done:
                raise await self._timed_out([ranks[task] for task in waiting])
            if any(task.result().cause for task in done):
                raise await self._first_failure(ranks, waiting)
            waiting -= done
            for task in done:
                self.outcomes[ranks[task].rank] = task.result()
        return True

    async def _attend(self, seat: Seat, port: asyncio.Future[str | None]) -> Outcome:
        """Everything that concerns one rank, up to its outcome."""
        key = self._key_of(seat)
        try:
            await asyncio.shield(self._started[seat.rank])
            if self._job.backend is None:
                return await self._call(seat, processes.finish, key, None)
            if seat.rank == 0:
                found = await self._call(seat, processes.port, key)
                if isinstance(found, Outcome):
                    return found
                port.set_result(f"{seat.address} {found}")
            rendezvous = await asyncio.shield(port)
            return await self._call(seat, processes.finish, key, rendezvous)
        except Exception as error:
            if seat.worker is None:
                raise
            if isinstance(error, OSError):  # CommClosedError, a connection refused
                self._lost.add(seat.rank)
            return Outcome(cause=f"was lost with its worker {seat.worker} ({error!r})")

    async def _first_failure(
        self, ranks: dict[asyncio.Task[Outcome], Seat], waiting: set[asyncio.Task[Outcome]]
    ) -> GangError:
        """The failure that made the others: a process that is gone comes before an exception."""

        def failed() -> list[asyncio.Task[Outcome]]:
            return [task for task in waiting if task.done() and task.result().cause]

        peers = waiting - set(failed())
        if peers and all(task.result().raised for task in failed()):
            await asyncio.wait(peers, timeout=_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        first = min(failed(), key=lambda task: task.result().raised)
        seat, outcome = ranks[first], first.result()
        return GangError(seat.rank, seat.host, outcome.cause, outcome.traceback, outcome.output)

    async def _timed_out(self, seats: list[Seat]) -> GangError:
        first = min(seats, key=lambda seat: seat.rank)
        late = ", ".join(str(seat.rank) for seat in sorted(seats, key=lambda seat: seat.rank))
        try:
            stack = await asyncio.wait_for(
                self._call(first, processes.where, self._key_of(first)), timeout=2
            )
        except Exception as error:  # only the account of where it hung is lost by this
            stack = f"(its stack could not be had: {error!r})"
        cause = f"timed out: not returned after {self._timeout_s} s had rank {late}"
        return GangError(first.rank, first.host, cause, traceback=stack)

    async def _end(self, seat: Seat, kindly: bool) -> None:
        started = self._started[seat.rank]
        await asyncio.wait([started], timeout=_END_S)  # or it would start behind our back
        if seat.rank in self._lost:
            return  # a rank ends with the process that started it; a call would only wait
        if seat.worker is None and started.exception() is not None:
            return  # it never was; `_attend` says why
        call = self._call(seat, processes.end, self._key_of(seat), kindly)
        try:
            await asyncio.wait_for(call, timeout=_END_S)
        except Exception as error:
            if seat.worker is None:
                raise
            # its worker is deaf, which must not hide the gang's own result
            print(f"rank {seat.rank} was left to {seat.worker}: {error!r}", file=sys.stderr)

    async def _start(self, seat: Seat) -> None:
        await self._call(seat, processes.start, self._key_of(seat), seat, self._job)

    def _key_of(self, seat: Seat) -> str:
        return f"{self._key}-{seat.rank}"
