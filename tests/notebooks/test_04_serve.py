"""`04_serve` in small on this machine: what its records say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sml_kernel import batch, records, serving

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMALL = {"events": 2, "pileup": 0, "concurrency": [1, 4], "duration_s": 0.3, "repeats": 1}


@pytest.mark.notebook
def test_the_tracker_is_served_asked_and_swept(tmp_path: Path, monkeypatch) -> None:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    monkeypatch.chdir(tmp_path)
    result = batch.run(
        NOTEBOOKS / "04_serve.ipynb",
        SMALL,
        folder=tmp_path / "run",
        timeout_s=600,
        progress=False,
    )
    assert (result.status, result.error) == ("done", "")
    results = result.folder / "results"
    (equal,) = records.read(results, "equal").itertuples()
    assert equal.graphs == 2
    assert equal.max_difference <= 1e-6
    assert set(records.read(results / "service", "check").model) == {"tracker", "tracks"}
    assert records.Run(results / "service").status() == "done"
    points = serving.open_load(results / "load").points()
    assert sorted(zip(points.transport, points.concurrency, strict=True)) == [
        ("grpc", 1),
        ("grpc", 4),
        ("http", 1),
        ("http", 4),
    ]
    assert (points.answered > 0).all()
    assert (points.failed == 0).all()
