"""A wide area on this machine: a TCP proxy that delays what passes, by half a round trip each way.

It is a long fat pipe: what is sent arrives later, in order and as fast as it was sent, from any
number of connections; only what has been read and waits is bounded (``--in-flight-mb`` of each
connection and way), and then the sender waits, as a window that is full makes it. A connection is
open one round trip after it was asked for. What it leaves out: losses, and the slow start of a
window, which a real wide area adds for large messages on a new connection. Times are kept to the
millisecond, upwards.

    python benchmarks/delaying.py 127.0.0.1:8001 --round-trip-ms 100     # says where it listens

It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def delayed(address: str, round_trip_ms: float) -> Iterator[str]:
    """The address, ``host:port``, of a proxy in a process of its own."""
    command = [sys.executable, __file__, address, "--round-trip-ms", str(round_trip_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        try:
            said = one.stdout.readline().strip()
            if not said:
                raise RuntimeError(f"the proxy to {address} did not start")
            yield said
        finally:
            one.stdin.close()


async def serve(address: str, round_trip_s: float, in_flight_bytes: int) -> None:
    """Listen on a free port of loopback, say which, and go on until standard input ends."""
    host, _, port = address.rpartition(":")
    going: set[asyncio.Task[None]] = set()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = asyncio.get_running_loop().time() + round_trip_s
        with contextlib.closing(writer):
            try:
                there = await asyncio.open_connection(host, int(port))
            except OSError:  # nothing listens: this side is closed too
                return
            with contextlib.closing(there[1]):
                await asyncio.gather(
                    _pass(reader, there[1], round_trip_s / 2, opened, in_flight_bytes),
                    _pass(there[0], writer, round_trip_s / 2, opened, in_flight_bytes),
                )

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(join(reader, writer))
        going.add(task)
        task.add_done_callback(going.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print("{}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    for task in list(going):
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    delay_s: float,
    opened: float,
    in_flight_bytes: int,
) -> None:
    """One way of a connection: read at once, write when it is due."""
    loop, on_the_way = asyncio.get_running_loop(), _OnTheWay(in_flight_bytes)

    async def read() -> None:
        data = b"first"
        while data:
            try:
                data = await reader.read(1 << 20)
            except ConnectionError:  # to the other side it ends
                data = b""
            await on_the_way.put(max(loop.time(), opened) + delay_s, data)

    async def write() -> None:
        data = b"first"
        while data:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            with contextlib.suppress(ConnectionError):  # who has gone needs nothing more
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    await asyncio.gather(read(), write())


class _OnTheWay:
    """What was read, with the moment at which it is due; bounded in bytes, not in pieces."""

    def __init__(self, in_flight_bytes: int) -> None:
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._bytes, self._most, self._room = 0, in_flight_bytes, asyncio.Event()

    async def put(self, due: float, data: bytes) -> None:
        self._bytes += len(data)
        self._queue.put_nowait((due, data))
        while self._bytes > self._most:
            self._room.clear()
            await self._room.wait()

    async def get(self) -> tuple[float, bytes]:
        due, data = await self._queue.get()
        self._bytes -= len(data)
        self._room.set()
        return due, data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("address", help="host:port of the server")
    add("--round-trip-ms", type=float, required=True, help="added to every round trip")
    add("--in-flight-mb", type=float, default=64, help="on the way at most (default %(default)s)")
    given = parser.parse_args()
    window = round(1e6 * given.in_flight_mb)
    asyncio.run(serve(given.address, given.round_trip_ms / 1000, window))


if __name__ == "__main__":
    main()
