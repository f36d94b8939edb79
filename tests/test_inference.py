"""From an ensemble to a measurement: its own spread, systematic variations, what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from sml_kernel import sbi

SMALL = {"hidden": (16,), "epochs": 10, "learning_rate": 5e-3, "batch": 256}


@pytest.mark.filterwarnings("ignore:the pool is worth")  # a small one is enough here
def test_an_ensemble_measures_a_fraction_with_its_own_uncertainty(tmp_path) -> None:
    family = sbi.MixtureFraction(2.0)
    made = sbi.Ensemble(sbi.draw(family, 5000, seed=6), 24, initialisations=3, **SMALL)
    fit = made.fit(folder=tmp_path / "c", progress=False)
    data, _ = family.sample(0.3, 1000, np.random.default_rng(8))
    strengths = sbi.fraction(fit.campaign.events.problem.classes)
    result = fit.infer(data, strengths=strengths, mode="shape", progress=False)
    best = result.intervals.estimate
    assert abs(best.value - 0.3) < 4 * 0.01996
    assert best.error == pytest.approx(0.01996, rel=0.15)
    assert 0 < result.spread < 0.02
    assert result.components is not None
    rows = result.run.rows()
    assert {"fit", "scan", "interval", "refit", "impact"} <= set(rows.kind)
    assert "24 of 24 members" in repr(result)
    covered = fit.coverage(
        0.3, events=1000, strengths=strengths, mode="shape", spread=result.spread, toys=300,
        progress=False,
    )  # fmt: skip
    assert covered.plain.error == pytest.approx(np.sqrt(0.6827 * 0.3173 / 300), rel=1e-3)
    assert covered.plain.fraction > 0.4
    assert covered.spread is not None
    assert covered.spread.fraction >= covered.plain.fraction
    assert (fit.folder / "coverages" / "0001" / "run.json").exists()


def test_one_side_of_a_variation_is_not_enough(tmp_path) -> None:
    x = np.random.default_rng(1).normal(size=(900, 1))
    labels = np.repeat(["signal", "other", "signal@scale=+1"], 300)
    problem = sbi.Problem.of(x, labels, classes=["signal", "other", "signal@scale=+1"])
    made = sbi.Ensemble(problem, 4, hidden=(4,), epochs=1, batch=64)
    fit = made.fit(folder=tmp_path / "c", progress=False)
    with pytest.raises(sbi.InputError, match=r"signal@scale=-1 and signal@scale=\+1"):
        fit.infer(x, progress=False)
