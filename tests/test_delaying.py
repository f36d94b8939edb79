"""The proxy that stands for a wide area delays, loses nothing, and is no queue."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from delaying import delayed

ROUND_TRIP_S = 0.1


@pytest.fixture(scope="module")
def far() -> Iterator[tuple[str, int]]:
    """An echo, a round trip away."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        with delayed("{}:{}".format(*server.getsockname()), 1000 * ROUND_TRIP_S) as address:
            host, _, port = address.partition(":")
            yield host, int(port)
        with pytest.raises(ConnectionRefusedError):  # it ends with the block
            socket.create_connection((host, int(port)))


def _serve(server: socket.socket) -> None:
    while True:
        try:
            each, _ = server.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_echo, args=(each,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1 << 20):
            connection.sendall(data)


def ask(far: tuple[str, int], times: int) -> list[float]:
    seconds = []
    with socket.create_connection(far) as connection:
        for _ in range(times):
            began = time.perf_counter()
            connection.sendall(b"?")
            assert connection.recv(1) == b"?"
            seconds.append(time.perf_counter() - began)
    return seconds


def test_every_round_trip_takes_one_and_the_first_two(far) -> None:
    first, *others = ask(far, 4)
    assert first >= 2 * ROUND_TRIP_S  # as a connection takes one to open
    assert min(others) >= ROUND_TRIP_S


def test_requests_at_once_do_not_wait_for_each_other(far) -> None:
    began = time.perf_counter()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda _: ask(far, 2), range(50)))
    assert time.perf_counter() - began < 50 * 3 * ROUND_TRIP_S / 4  # a quarter of one by one


def test_all_bytes_come_in_order_and_the_end_too(far) -> None:
    sent = bytes(range(256)) * 400_000  # 100 MB: more than may be on the way
    with socket.create_connection(far) as connection:
        sending = threading.Thread(
            target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR))
        )
        sending.start()
        received = bytearray()
        while data := connection.recv(1 << 20):
            received += data
        sending.join()
    assert received == sent
