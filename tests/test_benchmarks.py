"""Benchmarks run at small sizes, and record what their figures are drawn from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sml_kernel import records

ROOT = Path(__file__).parents[1]
SIZES = {"nodes": 60, "edges": 240, "hidden": 8, "iterations": 2, "repeats": 3}


def test_the_gpu_benchmark_on_a_cpu_writes_its_records(tmp_path: Path) -> None:
    sizes = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--square", "64"]
    command += ["--copy-mb", "1", "--forms", "ours", "--precisions", "float32", "bfloat16"]
    subprocess.run(
        [*command, *sizes, "--folder", str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    made_by = records.Run(tmp_path / "run").provenance()
    assert made_by["status"] == "done"
    assert made_by["parameters"]["device_name"] == "cpu: not measured on a GPU"
    assert len(records.read(tmp_path / "run", "roof")) == 2
    assert len(records.read(tmp_path / "run", "time")) == 2 * 3 * SIZES["repeats"]
    found = records.read(tmp_path / "run", "summary")
    assert len(found) == 6  # the textbook under bfloat16, ours twice; forward and step
    base = found.query("form == 'textbook'")
    assert list(base.precision) == ["bfloat16"] * 2
    assert list(base.ratio) == [1.0, 1.0]
    for row in found.itertuples():
        size = 2 if row.precision == "bfloat16" else 4
        passes = 3 if row.what == "step" else 1
        products = 2 * 8**2 * (6 * 240 + 15 * 60)
        assert row.tflops * 1e12 * row.median_s == pytest.approx(passes * products)
        assert row.gb_s * 1e9 * row.median_s == pytest.approx(passes * 240 * 8 * size * 16)
        assert row.lower_quartile_s <= row.median_s <= row.upper_quartile_s
    measured = records.read(tmp_path / "run", "memory")
    assert measured.peak_bytes.isna().all()  # no figure where there is none, but its reason
    assert measured.reason.str.startswith("not measured").all()
    assert (measured.query("form == 'ours'").predicted_bytes > 0).all()


def test_the_benchmark_of_ensembles_writes_its_records(tmp_path: Path) -> None:
    sizes = {"batch": 16, "steps": 3, "epochs": 2, "alone": 2, "repeats": 2}
    command = [sys.executable, "benchmarks/ensembles.py", "--members", "1", "3", "--forms", "stack"]
    command += [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    subprocess.run(
        [*command, "--folder", str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert records.Run(tmp_path / "run").provenance()["status"] == "done"
    found = records.read(tmp_path / "run", "time").set_index("form")
    assert list(found.index) == ["eager", "stack 1", "stack 3"]
    assert found.ratio["eager"] == 1
    assert found.held_out_loss["stack 3"] == pytest.approx(0.7, abs=0.2)
