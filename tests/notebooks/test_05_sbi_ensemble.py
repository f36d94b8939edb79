"""`05_sbi_ensemble` in small on this machine, twice: what it records, and that it trains once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sml_kernel import batch, records, sbi

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMALL = {"events": 8000, "data_events": 50, "members": 8, "initialisations": 2, "toys": 50}


@pytest.mark.notebook
def test_an_ensemble_is_trained_once_and_judged_and_used(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "campaign"
    given = {"site": "laptop", "folder": str(folder), "coverage_toys": 100, **SMALL}
    written = []
    for name in ("first", "again"):
        result = batch.run(
            NOTEBOOKS / "05_sbi_ensemble.ipynb",
            given,
            folder=tmp_path / name,
            timeout_s=600,
            progress=False,
        )
        assert (result.status, result.error) == ("done", "")
        written.append(sorted(folder.glob("shards/*/*")))
    fit = sbi.open_fit(folder)
    assert written[0] == written[1]
    assert str(fit.progress()) == "8 of 8 members done"
    for number in ("0001", "0002"):
        assert set(records.read(folder / "scorecards" / number).kind) >= {
            "check",
            "losses",
            "exact",
        }
        rows = records.read(folder / "inferences" / number)
        assert set(rows[rows.kind == "interval"].method) == {"wilks", "neyman"}
        coverage = records.read(folder / "coverages" / number, "coverage")
        assert (coverage.toys == 100).all()
        assert (coverage.fraction.between(0.4, 0.9)).all()
