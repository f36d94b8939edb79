"""Two real Tritons as one service: shared out, killed under load, back again, all gone."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from served_models import servable

from sml_kernel import serving
from sml_kernel.serving import local


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def two(folder: Path) -> Iterator[list[serving.Service]]:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(lambda name: start(folder / name), ("a", "b")))
    yield started
    for each in started:
        each.close()


def start(folder: Path) -> serving.Service:
    return serving.start({"twice": servable("twice", "honest")}, folder=folder, progress=False)


class Callers:
    """Threads that ask until they are told to stop; every request has a row of its own."""

    def __init__(self, service: serving.Service, threads: int) -> None:
        self.service, self.stop = service, threading.Event()
        self.right, self.wrong, self.failed = [0] * threads, [0] * threads, []
        self.asked = [0] * threads
        self.threads = [threading.Thread(target=self._ask, args=(k,)) for k in range(threads)]
        for each in self.threads:
            each.start()

    def _ask(self, k: int) -> None:
        while not self.stop.is_set():
            x = np.full((1, 3), 1000 * k + self.asked[k] % 997, np.float32)
            self.asked[k] += 1
            try:
                answer = self.service.infer("twice", x, transport="grpc")
            except Exception as error:
                self.failed.append(error)
                continue
            good = (answer == 2 * x).all()
            self.right[k] += bool(good)
            self.wrong[k] += not good

    def join(self) -> None:
        self.stop.set()
        for each in self.threads:
            each.join()


def until(done, timeout_s: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


def test_many_ask_at_once_from_asyncio_over_what_was_measured_to_be_faster(
    two, folder: Path
) -> None:
    x = np.ones((2, 3), np.float32)
    with serving.connect([folder / "a", folder / "b"]) as service:
        service.infer("twice", x)
        assert set(service.measured["twice", 1]) == {"grpc", "http"}

        async def many() -> list[serving.Answer]:
            asked = [service.ainfer("twice", k * x) for k in range(40)]
            return await asyncio.gather(*asked)

        for k, answer in enumerate(asyncio.run(many())):
            np.testing.assert_array_equal(answer, 2 * k * x)
        before = dict(service.counts)
        with pytest.raises(serving.UnknownModelError):
            service.infer("thrice", x)  # which is no reason to leave a server alone
        for _ in range(20):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: service.infer("twice", x, transport="grpc"), range(8)))
        assert all(service.counts[url] > before[url] for url in before)
        assert not service.counts.get("retried")
    with pytest.raises(ValueError, match="all in one way"):
        serving.connect(["127.0.0.1:1", "http://127.0.0.1:2"])


def test_a_server_killed_under_load_loses_no_request_and_is_asked_again_when_it_is_back(
    two, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.ones((2, 3), np.float32)
    places = [each.server.place for each in two]
    fallback = {"twice": servable("twice", "honest")}
    with (
        serving.connect([folder / "a", folder / "b"]) as service,
        serving.connect([folder / "a", folder / "b"], fallback=fallback) as careful,
    ):
        served = careful.infer("twice", x)
        callers = Callers(service, 4)
        try:
            assert until(lambda: min(service.counts.get(each.grpc, 0) for each in places) > 50)
            os.kill(two[0].server.pid, signal.SIGKILL)
            assert until(lambda: two[0].server.process.poll() is not None)
            alone = service.counts[places[0].grpc]
            seen = service.counts[places[1].grpc]
            assert until(lambda: service.counts[places[1].grpc] > seen + 100)
            monkeypatch.setattr(local, "_free_place", lambda _: places[0])
            two[0] = start(folder / "again")
            assert until(lambda: service.counts[places[0].grpc] > alone + 50)
        finally:
            callers.join()
        assert not callers.failed
        assert sum(callers.wrong) == 0
        assert sum(callers.right) == sum(callers.asked)
        answered = sum(service.counts[each.grpc] for each in places)
        assert answered == sum(callers.right)
        assert 1 <= service.counts["retried"] <= 2 * len(callers.threads)

        for each in two:
            each.close()
        with pytest.raises(serving.ServerGoneError, match="cannot be reached"):
            service.infer("twice", x)
        here = careful.infer("twice", x)
        np.testing.assert_array_equal(here, served)
        assert (served.served.version, here.served.version) == ("1", "fallback")
        assert served.served.hash == here.served.hash
        with pytest.raises(serving.InputError):
            careful.infer("twice", x.astype(int))
