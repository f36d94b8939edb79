"""`00_tour` in small through the project's own runner: what its records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sml_kernel import batch, records

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.notebook
def test_the_tour_finds_tracks_and_records_how_well(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = {"train_events": 16, "test_events": 4, "pileup": 2, "epochs": 10, "hidden": 16}
    result = batch.run(
        NOTEBOOKS / "00_tour.ipynb",
        {"site": "laptop", **small},
        folder=tmp_path / "run",
        timeout_s=600,
        progress=False,
    )
    assert (result.status, result.error) == ("done", "")
    training = records.Run(result.folder / "results" / "train")
    assert training.status() == "done"
    assert training.provenance()["parameters"]["ranks"] == 2
    epochs = training.rows("epoch")
    assert len(epochs) == 10
    assert epochs.validation_loss.iloc[-1] < 0.8 * epochs.validation_loss.iloc[0]
    assert set(training.rows("step").writer) == {"rank0", "rank1"}

    (headline,) = records.read(result.folder / "results", "headline").itertuples()
    assert headline.particles > 50
    assert headline.ceiling > 0.97
    assert headline.ceiling >= headline.efficiency > 0.5
    assert headline.fiducial["min_pt_gev"] == 1.0
    assert "two-way efficiency" in headline.text

    page = result.html.read_text()
    assert "Bokeh" in page
    assert "cdn.bokeh.org" not in page.split("</script>")[0]
