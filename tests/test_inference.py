"""From an ensemble to a measurement: its own spread, systematic variations, what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from sml_kernel import sbi
from sml_kernel.sbi import learned

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
    assert "24 of 24 members done; not judged yet" in repr(result)
    for most, said in ((1.0, "scorecard passed"), (-1.0, "SCORECARD FAILED")):
        bands = sbi.Bands(level=1e-9, failed=most, lost=1, ensemble_lost=1, outliers=1)
        fit.scorecard(bands=bands, two_sample=False, progress=False)
        again = fit.infer(data, strengths=strengths, mode="shape", spread=0, progress=False)
        assert again.scorecard.startswith(said)
    covered = fit.coverage(
        0.3, events=1000, strengths=strengths, mode="shape", spread=result.spread, toys=300,
        progress=False,
    )  # fmt: skip
    assert covered.plain.error == pytest.approx(np.sqrt(0.6827 * 0.3173 / 300), rel=1e-3)
    assert covered.plain.fraction > 0.4
    assert covered.spread is not None
    assert covered.spread.fraction >= covered.plain.fraction
    assert (fit.folder / "coverages" / "0001" / "run.json").exists()


def shifted(events: int) -> sbi.Problem:
    """Signal about 1.5 and background about 0; the nuisance ``scale`` moves both by .2 a σ."""
    random = np.random.default_rng(3)
    x, labels, weights, ids = [], [], [], []
    for number, (process, mean, expected) in enumerate((("signal", 1.5, 750), ("other", 0, 4250))):
        drawn = random.normal(mean, 1, events)
        for shift, kept in ((0, 1.0), (-1, 0.98), (1, 1.02)):
            name = process if not shift else f"{process}@scale={shift:+d}"
            x.append(drawn + 0.2 * shift)
            labels += [name] * events
            weights.append(np.full(events, kept * expected / events))
            ids.append(np.arange(events) + number * events)
    names = [f"{p}{s}" for p in ("signal", "other") for s in ("", "@scale=-1", "@scale=+1")]
    arrays = (np.concatenate(each) for each in (x, weights, ids))
    features, weight, event = arrays
    return sbi.Problem.of(features, labels, weight, classes=names, event_ids=event)


def test_systematic_variations_widen_the_interval_and_are_pulled(tmp_path) -> None:
    fit = sbi.Ensemble(shifted(6000), 5 * 2 * 4, **SMALL).fit(folder=tmp_path / "c", progress=False)
    assert fit.pairs[0] == ("signal", "other")
    assert ("other@scale=-1", "other") in fit.pairs
    random = np.random.default_rng(9)
    # data with the nuisance at +1: both means are .2 higher, and 2 % more events
    data = np.concatenate([random.normal(1.7, 1, 765), random.normal(0.2, 1, 4335)])[:, None]
    result = fit.infer(data, progress=False)
    best = result.intervals.estimate
    pull, constraint = best.nuisances["scale"]
    assert constraint < 0.5, "data know the nuisance better than its constraint does"
    assert abs(pull - 1) < 4 * constraint
    assert abs(best.value - 1) < 3 * best.error
    held = fit.infer(data, spread=0.0, progress=False)
    assert held.intervals.estimate.error < best.error * 1.02
    assert result.impacts is not None
    assert "scale" in {row["parameter"] for row in result.impacts.rows()}


def test_ratios_are_normalised_as_well_as_can_be() -> None:
    """Exact ratios times 1.3: C is 1.3 within Bennett's error; the mean of r has five times it."""
    random, found = np.random.default_rng(5), []
    of_numerator = np.repeat([True, False], 4000)
    for _ in range(30):
        x = random.normal(size=8000) + 2 * of_numerator
        ratio = 1.3 * np.exp(2 * x - 2)
        found.append(
            (learned.normalisation(ratio, of_numerator, np.ones(8000)), ratio[4000:].mean())
        )
    normal = np.exp(-(np.linspace(-8, 10, 4001) ** 2) / 2) / np.sqrt(2 * np.pi)
    moved = np.exp(-((np.linspace(-8, 10, 4001) - 2) ** 2) / 2) / np.sqrt(2 * np.pi)
    overlap = float((normal * moved / (normal + moved)).sum() * 18 / 4000)
    error = np.sqrt((1 / overlap - 2) / 4000)  # of ln C, Bennett's, with equal samples
    logs = np.log(found) - np.log(1.3)
    assert abs(logs[:, 0].mean()) < 4 * error / np.sqrt(30)
    assert logs[:, 0].std(ddof=1) == pytest.approx(error, rel=4 / np.sqrt(2 * 29))
    assert logs[:, 1].std(ddof=1) > 2 * error


def test_one_side_of_a_variation_is_not_enough(tmp_path) -> None:
    x = np.random.default_rng(1).normal(size=(900, 1))
    labels = np.repeat(["signal", "other", "signal@scale=+1"], 300)
    problem = sbi.Problem.of(x, labels, classes=["signal", "other", "signal@scale=+1"])
    made = sbi.Ensemble(problem, 4, hidden=(4,), epochs=1, batch=64)
    fit = made.fit(folder=tmp_path / "c", progress=False)
    with pytest.raises(sbi.InputError, match=r"signal@scale=-1 and signal@scale=\+1"):
        fit.infer(x, progress=False)
