"""Figures of a network: exact where they are known, and bands that hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from sml_kernel import sbi
from sml_kernel.sbi.scorecard import calibration, ranking
from sml_kernel.sbi.scorecard.binned import chi_square, share_covariance
from sml_kernel.sbi.scorecard.curves import closure_rows, reliability_rows
from sml_kernel.sbi.scorecard.metrics import Held, columns, judge

FAMILY = sbi.GaussianShift(delta=1.0, dimensions=2)


def held_out(family, events: int, seed: int) -> Held:
    """Events of both classes, by the weights of the family, with the exact ratio."""
    problem = sbi.draw(family, events, seed)
    numerator = problem.labels == 0
    exact = sbi.log_ratio(family, problem.features, *problem.classes)
    return Held(problem.features, numerator, problem.weights, exact)


@pytest.fixture(scope="module")
def large() -> Held:
    return held_out(FAMILY, 200_000, 1)


def test_exact_logits_have_the_exact_figures(large: Held) -> None:
    """AUC .76025, BCE .58173 and Var_ref r = e − 1 at δ = 1, each within 3.5 of its own error."""
    found = {name: each[0] for name, each in judge(large.exact[None], large).items()}
    assert abs(found["auc"] - 0.76025) < 3.5 * found["auc_error"] < 4e-3
    assert abs(found["bce"] - 0.58173) < 3.5 * found["bce_error"] < 4e-3
    assert found["excess"] == found["excess_error"] == 0
    variance = found["normalisation_error"] ** 2 * 200_000
    assert variance == pytest.approx(np.e - 1, rel=0.05)
    assert found["normalisation_events"] == pytest.approx(200_000 / np.e, rel=0.05)
    assert found["information"] == pytest.approx(np.log(2) - 0.58173, abs=3e-3)


def test_excess_is_that_of_the_integral(large: Held) -> None:
    """A logit scaled by 1.3 has an excess that one integral gives; its error is paired."""

    def loss(x: float, scale: float) -> float:
        logit = scale * (x - 0.5)
        return 0.5 * stats.norm.pdf(x, 1) * np.logaddexp(0, -logit) + 0.5 * stats.norm.pdf(
            x
        ) * np.logaddexp(0, logit)

    wanted = np.subtract(*(integrate.quad(loss, -9, 10, (k,))[0] for k in (1.3, 1.0)))
    found = judge(1.3 * large.exact[None], large)
    assert abs(found["excess"][0] - wanted) < 3.5 * found["excess_error"][0]
    assert found["excess_error"][0] < found["bce_error"][0] / 3


def test_auc_is_its_definition_with_ties_and_negative_weights() -> None:
    rng = np.random.default_rng(2)
    logits = rng.integers(0, 6, (3, 300)).astype("float32")
    numerator = rng.random(300) < 0.4
    weights = rng.uniform(0.5, 2, 300) * np.where(rng.random(300) < 0.2, -1, 1)
    weights /= np.where(numerator, weights[numerator].sum(), weights[~numerator].sum())
    area, _ = ranking.auc(logits, numerator, weights)
    above = logits[:, numerator, None] - logits[:, None, ~numerator]
    pairs = weights[numerator, None] * weights[None, ~numerator]
    assert area == pytest.approx((pairs * (np.sign(above) + 1) / 2).sum((1, 2)))


def signed(events: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, numerator, and weights of both signs that sum to one in each class."""
    rng = np.random.default_rng(seed)
    numerator = rng.random(events) < 0.4
    weights = rng.uniform(0.5, 2, events) * np.where(rng.random(events) < 0.2, -1, 1)
    weights /= np.where(numerator, weights[numerator].sum(), weights[~numerator].sum())
    return rng.normal(size=events) + numerator, numerator, weights


def test_the_covariance_of_bins_is_the_sum_over_events() -> None:
    """V = Σ_i w_i² (1_i − h)(1_i − h)ᵀ of signed weights; multinomial where all are alike."""
    _, numerator, weights = signed(500, 3)
    weights = weights[numerator]
    inside = np.eye(6)[np.random.default_rng(4).integers(0, 6, len(weights))]
    shares, squares = weights @ inside, weights**2 @ inside
    away = weights[:, None] * (inside - shares)
    covariance = share_covariance(shares, squares)
    assert covariance == pytest.approx(away.T @ away)
    d = np.array([0.1, -0.2, 0.05, 0.02, -0.07, 0.1])
    chi2 = chi_square(d, covariance, np.ones(6, bool), shares=True)
    assert chi2 == pytest.approx(d @ np.linalg.pinv(covariance) @ d)
    h = np.array([0.2, 0.3, 0.5])
    assert share_covariance(h, h / 100) == pytest.approx((np.diag(h) - np.outer(h, h)) / 100)


def test_the_reliability_of_signed_weights_is_the_sum_over_events() -> None:
    logits, numerator, weights = signed(4000, 5)
    found = calibration.reliability(logits[None], numerator, weights)
    edges = np.sort(logits[::2])[[2000 * k // 10 for k in range(1, 10)]]
    inside = np.eye(10)[np.searchsorted(edges, logits, side="right")]
    score = 1 / (1 + np.exp(-logits))
    total, covariance = np.zeros(10), np.zeros((10, 10))
    for of_class, left, sign in ((numerator, 1 - score, 1), (~numerator, score, -1)):
        terms = left[of_class, None] * inside[of_class]
        mean = weights[of_class] @ terms
        away = weights[of_class, None] * (terms - mean)
        total, covariance = total + sign * mean, covariance + away.T @ away
    assert found.chi2[0] == pytest.approx(total @ np.linalg.solve(covariance, total))
    shares = [(weights * of) @ inside for of in (numerator, np.ones(4000), score)]
    assert found.observed[0] == pytest.approx(shares[0] / shares[1])
    assert found.predicted[0] == pytest.approx(shares[2] / shares[1])


def test_distance_is_the_wasserstein_distance() -> None:
    """Of the reweighted reference to the numerator, also for whole numbers."""
    held = held_out(FAMILY, 20_000, 4)
    x = np.column_stack([held.x, np.round(2 * held.x[:, 0])])
    logits = 0.5 * held.exact
    found = judge(logits[None], Held(x, held.numerator, held.weights))["wasserstein"][0]
    num = held.numerator
    for d, distance in enumerate(found):
        moved = held.weights[~num] * np.exp(logits[~num])
        wanted = stats.wasserstein_distance(
            x[num, d], x[~num, d], held.weights[num], moved
        ) / np.std(x[:, d])
        assert distance == pytest.approx(wanted, rel=0.05, abs=0.003), d


@pytest.mark.parametrize("family", [FAMILY, sbi.SignedMixture()], ids=["shift", "signed"])
def test_bands_hold_as_often_as_they_say(family) -> None:
    """The exact ratio on 200 fresh samples, of signed weights too; binomial bands of 99.9 %."""
    samples, level = 200, 0.05
    rows = []
    for seed in range(samples):
        held = held_out(family, 3000, 100 + seed)
        found = judge(held.exact[None], held)
        rows.append({name: each.ravel()[0] for name, each in found.items()})
    got = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    low, high = stats.binom.interval(0.999, samples, level)
    inside = stats.norm.isf(level / 2)
    outside = {
        "normalisation": np.abs(got["normalisation_pull"]) > inside,
        "bce": np.abs(got["bce"] - got["bce"].mean()) > inside * got["bce_error"],
        "auc": np.abs(got["auc"] - got["auc"].mean()) > inside * got["auc_error"],
        **{name: got[name] < level for name in ("reliability_p", "closure_p", "wasserstein_p")},
    }
    failing = {name: int(each.sum()) for name, each in outside.items()}
    assert all(low <= number <= high for number in failing.values()), (failing, low, high)
    # not the tail alone: the whole distribution of p-values of χ² is flat
    for name in ("reliability_p", "closure_p"):
        assert stats.kstest(got[name], "uniform").pvalue > 1e-3, name
    mean, error = got["wasserstein"].mean(), got["wasserstein"].std() / np.sqrt(samples)
    assert abs(mean - got["wasserstein_expected"].mean()) < 4 * error


def test_wrong_logits_fail_the_rows_that_they_should() -> None:
    """Scaled by 1.3, shifted by .2, and one that has hardly learned; the exact one passes."""
    held = held_out(FAMILY, 30_000, 7)
    logits = np.stack([held.exact, 1.3 * held.exact, held.exact + 0.2, 0.1 * held.exact])
    found = judge(logits, held)
    p = {
        "normalisation": 2 * stats.norm.sf(np.abs(found["normalisation_pull"])),
        "reliability": found["reliability_p"],
        "closure": found["closure_p"][:, 0],
        "wasserstein": found["wasserstein_p"][:, 0],
    }
    failing = [{name for name, each in p.items() if each[m] < 1e-3} for m in range(4)]
    assert failing[0] == set()
    assert failing[1] == {"normalisation", "reliability", "closure", "wasserstein"}
    assert failing[2] == {"normalisation", "reliability"}  # a factor moves no shape …
    assert found["auc"][2] == pytest.approx(found["auc"][0], abs=1e-9)
    assert found["normalisation"][2] == pytest.approx(
        np.exp(0.2) * found["normalisation"][0]
    )  # … but the yield
    assert failing[3] >= {"reliability", "closure", "wasserstein"}
    assert (found["closure_p"][:, 1] > 1e-3).all()  # the second feature is the same in both


def test_a_constant_network_is_calibrated_and_does_not_close(large: Held) -> None:
    found = judge(np.zeros((1, len(large.x))), large)
    assert found["auc"] == pytest.approx(0.5)
    assert found["reliability_dof"] == 1
    assert found["reliability_p"] == pytest.approx(1)
    assert found["closure_p"][0, 0] < 1e-12


def test_inflation_widens_bands_by_the_training_sample() -> None:
    """A ratio whose normalisation wanders as much again as the held-out one: κ = 1."""
    rng = np.random.default_rng(9)
    held = held_out(FAMILY, 3000, 7)
    (error,) = judge(held.exact[None], held)["normalisation_error"]
    exact = held.exact - np.log(judge(held.exact[None], held)["normalisation"])
    pulls = rng.normal(size=(400, 2)) @ [1, 1]
    found = judge(exact + np.log1p(error * pulls)[:, None], held, inflation=1.0)
    outside = int((np.abs(found["normalisation_pull"]) > 2).sum())
    low, high = stats.binom.interval(0.999, 400, 2 * stats.norm.sf(2))
    assert low <= outside <= high


def test_members_have_the_same_bits_in_any_company_and_a_broken_one_is_nan() -> None:
    held = held_out(FAMILY, 20_000, 3)
    rng = np.random.default_rng(0)
    logits = (held.exact * rng.uniform(0.7, 1.2, (9, 1))).astype("float32")
    logits[4, 17] = np.inf
    losses = np.linspace(0.5, 0.6, 9)
    together = judge(logits, held, training_loss=losses)
    for m in (0, 4, 8):
        alone = judge(logits[m : m + 1], held, training_loss=losses[m : m + 1])
        for name, values in together.items():
            np.testing.assert_array_equal(values[m], alone[name][0], err_msg=name)
    assert all(np.isnan(values[4]).all() for values in together.values())
    assert all(np.isfinite(values[[0, 8]]).all() for values in together.values())
    assert together["overfit"][0] == together["bce"][0] - 0.5


def test_what_is_not_there_is_nan_and_not_a_number() -> None:
    held = held_out(FAMILY, 2000, 3)
    constant = np.column_stack([held.x, np.full(len(held.x), 3.0)])
    found = judge(held.exact[None], Held(constant, held.numerator, held.weights))
    for name in ("excess", "excess_error", "information", "overfit"):
        assert np.isnan(found[name]).all()
    assert found["closure_dof"][0, 2] == 0
    for name in ("closure_chi2", "closure_p", "wasserstein", "wasserstein_p"):
        assert np.isnan(found[name][0, 2])
        assert np.isfinite(found[name][0, :2]).all()
    named = columns(found, ["a", "b", "c"])
    assert named["closure_p:b"] == found["closure_p"][:, 1]
    assert "closure_p" not in named


def test_rows_for_figures_hold_what_was_judged() -> None:
    """Histograms are those of NumPy at the edges in the rows, and sum to one; curves are close."""
    held = held_out(FAMILY, 20_000, 6)
    rows = [row for row in closure_rows(held.exact, held, ("a", "b")) if row["feature"] == "a"]
    assert len(rows) == 40
    edges = [rows[0]["low"], *(row["high"] for row in rows)]
    a, num = held.x[:, 0], held.numerator
    for name, rows_of, weights in (
        ("numerator", num, np.ones(len(a))),
        ("reference", ~num, np.ones(len(a))),
        ("reweighted", ~num, np.exp(held.exact)),
    ):
        counts, _ = np.histogram(a[rows_of], edges, weights=weights[rows_of])
        got = [row[name] for row in rows]
        assert got == pytest.approx(counts / counts.sum(), abs=2e-4), name
    pulls = [
        (row["numerator"] - row["reweighted"])
        / np.hypot(row["numerator_error"], row["reweighted_error"])
        for row in rows
    ]
    assert np.square(pulls).sum() < stats.chi2.isf(1e-3, 40)
    curve = reliability_rows(held.exact, held)
    assert len(curve) == 10
    assert all(abs(row["observed"] - row["predicted"]) < 4.5 * row["error"] for row in curve)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numerator": np.zeros(10, int)}, "bool"),
        ({"weights": -np.ones(10)}, "total weight of -5"),
        ({"weights": np.full(10, np.nan)}, "not finite"),
        ({"exact": np.zeros(9)}, "exact of shape"),
    ],
)
def test_events_that_cannot_judge_are_refused(change: dict, said: str) -> None:
    whole = {"x": np.zeros((10, 1)), "numerator": np.arange(10) < 5, "weights": np.ones(10)}
    with pytest.raises(ValueError, match=said):
        Held(**{**whole, **change})
