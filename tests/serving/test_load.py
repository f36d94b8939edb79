"""Sweeps of a real Triton: what they count, what they resume, and what they do not hide."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from served_models import servable

from sml_kernel import records, serving
from sml_kernel.serving.load import AXES, PARTS

X = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Service]:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    models = {"twice": servable("twice", "honest"), "slow": servable("slow", "sleeping")}
    folder = tmp_path_factory.mktemp("load") / "run"
    with serving.start(models, folder=folder, progress=False) as started:
        yield started


def test_every_request_is_counted_on_both_sides_and_its_time_has_parts(service, tmp_path) -> None:
    wrong = X.copy()
    wrong[0, 0] = np.nan  # the model refuses it
    load = serving.sweep(
        service,
        "twice",
        [X, X, wrong],
        concurrency=[1, 4],
        transports=["grpc", "http"],
        duration_s=0.3,
        repeats=2,
        direct=lambda x: 2 * x,
        folder=tmp_path / "sweep",
        progress=False,
    )
    points = load.points()
    assert len(points) == 8
    assert (points.others == 0).all()
    assert (points.answered > 20).all()
    for row in points.itertuples():
        assert row.errors == {"ModelError": row.failed}
        assert row.failed == pytest.approx(row.answered / 2, abs=3 * row.concurrency)
        assert sum(getattr(row, f"{part}_us") for part in PARTS) == pytest.approx(row.mean_us)
        assert min(getattr(row, f"{part}_us") for part in PARTS) >= 0
    busy = points[points.concurrency == 4]
    assert (busy.mean_batch > 2).all()  # 2 rows each, and some are joined
    assert len(load.direct()) > 20
    table = serving.open_load(tmp_path / "sweep").table()
    assert table.failed.sum() == points.failed.sum()


def test_processes_ask_as_one(service, tmp_path) -> None:
    load = serving.sweep(
        service,
        "twice",
        [X],
        concurrency=[3],
        duration_s=0.5,
        repeats=1,
        processes=2,
        folder=tmp_path / "sweep",
        progress=False,
    )
    (row,) = load.points().itertuples()
    assert (row.processes, row.failed, row.others) == (2, 0, 0)
    assert row.answered > 20


def test_an_open_loop_does_not_hide_who_waits(service, tmp_path) -> None:
    """400 requests a second to a model that answers 200: after 1 s the last waits for 1 s."""
    load = serving.sweep(
        service,
        "slow",
        [X[:1]],
        concurrency=[1],
        rates=[400.0],
        duration_s=1.0,
        repeats=1,
        folder=tmp_path / "sweep",
        progress=False,
    )
    closed, opened = load.points().sort_values("rate").itertuples()
    assert opened.answered == pytest.approx(400, abs=100)  # five standard deviations
    assert opened.p90_us > 400_000 > 4 * closed.p50_us


KILLED = """
import sys
import numpy as np
from sml_kernel import serving
with serving.connect(sys.argv[1]) as service:
    serving.sweep(service, "twice", [np.ones((2, 3), "f4")], concurrency=[1, 2, 3],
                  duration_s=0.4, repeats=3, folder=sys.argv[2], progress=False)
"""


def test_a_sweep_that_was_killed_measures_what_is_missing(service, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    child = subprocess.Popen([sys.executable, "-c", KILLED, service.server.folder, folder])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if folder.exists() and len(records.Run(folder).rows("load")) >= 4:
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    before = serving.open_load(folder).points()
    assert 4 <= len(before) < 9
    load = serving.sweep(
        service,
        "twice",
        [X],
        concurrency=[1, 2, 3],
        duration_s=0.4,
        repeats=3,
        folder=folder,
        progress=False,
    )
    points = load.points()
    assert len(points) == 9
    assert not points.duplicated([*AXES, "repeat"]).any()
    assert set(before.throughput_s) <= set(points.throughput_s)
    assert records.Run(folder).status() == "done"
    with pytest.raises(records.RecordError, match="another folder"):
        serving.sweep(service, "twice", [X], duration_s=1, folder=folder, progress=False)


def test_what_cannot_be_asked_is_refused_before_anything_is_measured(service, tmp_path) -> None:
    with pytest.raises(serving.InputError, match="float32, not float64"):
        serving.sweep(service, "twice", [X.astype(float)], folder=tmp_path / "sweep")
    with pytest.raises(serving.UnknownModelError, match="ready: slow, twice"):
        serving.sweep(service, "thrice", [X], folder=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
