"""A real Triton judged from outside: by its metrics, and by perf_analyzer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from served_models import servable

from sml_kernel import plots, records, serving
from sml_kernel.serving import perf_analyzer
from sml_kernel.serving.statistics import statistics

X = np.ones((3, 3), np.float32)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Service]:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    folder = tmp_path_factory.mktemp("watched") / "run"
    with serving.start({"twice": servable("twice", "honest")}, folder=folder) as started:
        yield started


def test_metrics_are_what_the_server_counts_and_a_watch_misses_no_request(
    service, tmp_path
) -> None:
    with serving.watch(service, every_s=0.1, folder=tmp_path / "watch") as watch:
        assert until(lambda: len(watch.run.rows("device")) > 0)  # the first reading
        for _ in range(100):
            service.infer("twice", X, transport="grpc")
        with pytest.raises(serving.ModelError):
            service.infer("twice", np.full_like(X, np.nan), transport="grpc")
        (reading,) = serving.read_metrics(service)
        counted = statistics(service.transports["grpc"], "twice")
        assert reading.models["twice"].total_s == pytest.approx(counted.total_s, abs=2e-3)
        for name in ("requests", "failed", "inferences", "executions"):
            assert getattr(reading.models["twice"], name) == getattr(counted, name)
        assert until(lambda: answered(watch.run) > 100.5)
    rows = watch.run.rows("metrics")
    assert answered(watch.run) == pytest.approx(101)  # Triton takes the model's error as an answer
    assert (rows.failed_s == 0).all()
    assert rows.mean_batch.dropna().tolist() == pytest.approx([3] * rows.mean_batch.count())
    assert records.Run(tmp_path / "watch").status() == "done"
    assert len(plots.activity(records.Run(tmp_path / "watch"))) == 6


def test_perf_analyzer_stands_beside_each_point_and_is_not_asked_again(service, tmp_path) -> None:
    try:
        perf_analyzer.found_perf_analyzer()
    except serving.InstallError as error:
        pytest.skip(str(error))

    def sweep() -> serving.Load:
        return serving.sweep(
            service,
            "twice",
            [X, 2 * X],
            concurrency=[2],
            transports=["grpc", "http"],
            duration_s=0.3,
            repeats=1,
            perf_analyzer=True,
            folder=tmp_path / "sweep",
            progress=False,
        )

    load, before = sweep(), statistics(service.transports["grpc"], "twice").requests
    table = load.table()
    assert table.transport.tolist() == ["grpc", "http"]
    parts = table[[f"analyzer_{each}_us" for each in ("client", "network", "queue", "compute")]]
    assert parts.sum(axis=1).to_numpy() == pytest.approx(table.analyzer_mean_us.to_numpy(), abs=9)
    # Little's law: two requests under way, each of the mean time
    under_way = table.analyzer_throughput_s * table.analyzer_mean_us / 1e6
    assert under_way.to_numpy() == pytest.approx(2, rel=0.25)
    assert len(load.plot()) == 4
    sweep()
    assert statistics(service.transports["grpc"], "twice").requests == before


def test_a_watch_says_that_a_server_is_gone(service, tmp_path) -> None:
    """The last that uses the service."""
    watch = serving.watch(service, every_s=0.1)
    assert watch.run.folder == service.server.folder  # the record of who started the server
    os.kill(service.server.pid, signal.SIGKILL)
    assert until(lambda: len(watch.run.rows("gone")) > 1)
    assert until(lambda: not service.server.alive())
    service.close()  # ends the watch too
    rows = len(watch.run.rows())
    with pytest.raises(serving.ServerGoneError, match="no metrics"):
        serving.read_metrics(service)
    assert len(watch.run.rows()) == rows
    assert watch.run.status() == "failed"  # the server's own, not the watch's


def answered(run: records.Run) -> float:
    rows = run.rows("metrics")
    return 0.0 if rows.empty else float((rows.throughput_s * rows.seconds).sum())


def until(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()
