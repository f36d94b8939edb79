"""The page of lessons says what the records in the repository say, and no number of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "howto.py"
PAGE = ROOT / "docs" / "howto-distributed-gnn.md"


def written(*records: str) -> str:
    """The page that the script makes, without writing it."""
    code = "import howto, pathlib, sys; print(howto.page(*map(pathlib.Path, sys.argv[1:])), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code, *records],
        cwd=SCRIPT.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_page_is_what_its_records_make() -> None:
    assert PAGE.read_text() == written(), "run python benchmarks/howto.py write"


def test_another_measurement_makes_another_page(tmp_path: Path) -> None:
    copy = tmp_path / "records"
    shutil.copytree(ROOT / "benchmarks" / "records", copy)
    rows = next((copy / "gnn" / "rows").glob("*.jsonl"))
    rows.write_text(re.sub(r'("ratio": )[\d.]+', r"\g<1>7.77", rows.read_text()))
    assert "7.77" in written(str(copy))
    assert "7.77" not in PAGE.read_text()


def test_a_record_that_is_gone_is_no_empty_place(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        written(str(tmp_path))
    assert "gnn" in error.value.stderr
