"""`03_scaling` in small on this machine, twice: what it records, and that it repeats nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sml_kernel import batch, scaling

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MODES = ("strong", "weak")
SMALL = {"events": 6, "pileup": 1, "repeats": 1, "steps": 4, "hidden": 8, "iterations": 2}


@pytest.mark.notebook
def test_both_studies_are_measured_once_and_predicted_before(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = {"site": "laptop", "folder": str(tmp_path / "studies"), **SMALL}
    written = []
    for name in ("first", "again"):
        result = batch.run(
            NOTEBOOKS / "03_scaling.ipynb",
            given,
            folder=tmp_path / name,
            timeout_s=600,
            progress=False,
        )
        assert (result.status, result.error) == ("done", "")
        studies = {mode: scaling.open_study(tmp_path / "studies" / mode) for mode in MODES}
        written.append([len(study.run.rows()) for study in studies.values()])
    assert written[0] == written[1]
    for mode, study in studies.items():
        assert study.points().status.tolist() == ["done", "done"], study.points().reason.tolist()
        assert (study.run.status(), study.parameters["mode"]) == ("done", mode)
        work = study.steps().groupby("ranks").graphs.sum()
        assert work[2] / work[1] == (1 if mode == "strong" else 2)
        assert study.losses().lost.iloc[1] == pytest.approx(1 - study.table().efficiency[1])
    predicted = studies["strong"].run.rows("prediction")
    assert predicted.ranks.tolist() == [1, 2]
    assert predicted.time.max() < studies["strong"].run.rows("step").time.min()
    assert set(scaling.compare(studies["strong"]).ranks) == {1, 2}
