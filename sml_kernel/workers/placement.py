"""Where the ranks of a gang run, and how they are reached: here, or on Dask workers."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sml_kernel.workers.rank import Seat

if TYPE_CHECKING:
    from distributed import Client

#: Calls one of the functions of `sml_kernel.workers.processes` where a seat is.
Call = Callable[..., Awaitable[Any]]


def local(ranks: int, threads: int | None) -> list[Seat]:
    """Seats of a gang that runs on this host alone."""
    host, cores = socket.gethostname(), len(os.sched_getaffinity(0))
    share = threads or max(1, cores // ranks)
    return [Seat(rank, ranks, rank, ranks, host, "127.0.0.1", share) for rank in range(ranks)]


def on_workers(client: Client, ranks: int, threads: int | None) -> list[Seat]:
    """A seat on each of the first workers, in the natural order of their names.

    Raises
    ------
    ValueError
        More ranks than workers.
    """
    known = client.scheduler_info(n_workers=-1)["workers"]
    if ranks > len(known):
        raise ValueError(
            f"{ranks} ranks need {ranks} workers, one each, and {len(known)} are connected; wait "
            f"for more (workers.client.wait_for_workers({ranks})), or ask for fewer ranks"
        )
    addresses = sorted(known, key=lambda address: _natural(known[address]["name"], address))[:ranks]
    found = client.run(_host_and_cores, workers=addresses)
    on_host = Counter(host for host, _ in found.values())
    on_cores = Counter(found.values())
    seen: Counter[str] = Counter()
    seats = []
    for rank, worker in enumerate(addresses):
        host, cores = found[worker]
        share = threads or max(1, len(cores) // on_cores[host, cores])
        ip = urlsplit(worker).hostname if "://" in worker and "inproc" not in worker else None
        seats.append(
            Seat(rank, ranks, seen[host], on_host[host], host, ip or "127.0.0.1", share, worker)
        )
        seen[host] += 1
    return seats


def _host_and_cores() -> tuple[str, tuple[int, ...]]:
    return socket.gethostname(), tuple(sorted(os.sched_getaffinity(0)))


def _natural(name: object, address: str) -> list[tuple[int, int, str]]:
    """Sorts ``job-2`` before ``job-10``."""
    pieces = re.findall(r"\d+|\D+", f"{name} {address}")
    return [(0, int(each), "") if each.isdigit() else (1, 0, each) for each in pieces]


async def call_here(seat: Seat, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Call where the caller is."""
    return await function(*args)


def call_through(client: Client) -> Call:
    """Calls on the worker of a seat, outside Dask's task graph: never retried, never moved."""

    async def call(seat: Seat, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        worker = str(seat.worker)

        async def on_clients_loop() -> Any:
            return (await client.run(function, *args, workers=[worker]))[worker]

        loop = client.loop.asyncio_loop  # type: ignore[union-attr]
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(on_clients_loop(), loop))

    return call
