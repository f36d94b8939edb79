"""Coverage: of exact ratios, of ratios with one bias, and of networks trained again and again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sml_kernel.sbi.likelihood.coverage import Covered, EnsembleCoverage, measure_coverage
from sml_kernel.sbi.likelihood.estimates import estimate
from sml_kernel.sbi.likelihood.intervals import ONE_SIGMA
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.likelihood.refits import refit
from sml_kernel.sbi.likelihood.strengths import fraction
from sml_kernel.sbi.likelihood.toys import asimov
from sml_kernel.sbi.problems.origins import InputError

PROCESSES = ("signal", "background")
SIGMA = 0.0338  # of the fraction, N = 1000, f = .3: facts of the problem
F = np.array([0.3])


def learned(x: np.ndarray, slope: float = 1.0, offset: float = -0.5) -> Ratios:
    """Ratios exp(slope x + offset) of two Gaussians one apart; as given they are exact."""
    return Ratios(PROCESSES, np.array([np.exp(slope * x + offset), np.ones(len(x))]))


@cache
def pool() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(400_000)


def model() -> Likelihood:
    x = pool()[:1000]
    return Likelihood(learned(x), Rates(np.ones(2)), fraction(PROCESSES), "shape")


def logistic(seed: int, events: int = 3000) -> tuple[float, float]:
    """Slope and offset of a logistic regression (Newton) on its own sample of both classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(events) % 2
    x = np.column_stack([rng.standard_normal(events) + y, np.ones(events)])
    w = np.zeros(2)
    for _ in range(8):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    return float(w[0]), float(w[1])


def test_exact_ratios_cover() -> None:
    """2,000 toys: coverage .681 ± .010 and pulls .011 ± .997 are what the facts page has."""
    exact = learned(pool())
    found = measure_coverage(
        model(), lambda _: exact, exact.ratio, 0.3, toys=2000, spread=SIGMA, progress=False
    )
    (one,) = found.plain.ensembles
    assert found.spread is not None  # for ratios without an error it is √2 too wide: erf(1)
    assert found.spread.fraction == pytest.approx(math.erf(1), abs=3 * math.sqrt(0.13 / 2000))
    assert one.failed == 0
    assert found.plain.error == pytest.approx(0.0104, abs=1e-4)
    assert found.plain.passed, found.plain.fraction
    # toys scatter by 1/√2000 of σ, and the pool moves them by about √(1000/350,000)
    assert abs(one.pull_mean) < 3 * math.hypot(1 / math.sqrt(2000), math.sqrt(1000 / 350_000))
    assert one.pull_width == pytest.approx(1, abs=3 / math.sqrt(4000))
    assert one.error == pytest.approx(SIGMA, rel=0.02)


def test_the_band_of_a_thousand_toys() -> None:
    one = EnsembleCoverage(0, 0.0, 1000, 653, 0, 0.0, 0.0, 1.0, SIGMA)
    covered = Covered("plain", ONE_SIGMA, (one,))
    assert covered.band == pytest.approx((0.653, 0.712), abs=5e-4)
    assert not covered.passed  # .653 is just below the band's lower end of .6533


def test_ratios_with_a_bias_do_not_cover() -> None:
    """A slope of 1.15 for 1, as of a network that overfitted: one ensemble has one bias, which a
    fit to what is expected shows too."""
    exact = learned(pool())
    biased = learned(pool(), 1.15, -0.5)
    found = measure_coverage(model(), lambda _: biased, exact.ratio, 0.3, toys=500, progress=False)
    assert not found.plain.passed
    (one,) = found.plain.ensembles
    expected = asimov(model(), exact, F)
    shifted = replace(model(), ratios=replace(biased, weights=expected.weights))
    assert one.bias == pytest.approx(estimate(shifted).value - 0.3, abs=4 * SIGMA / math.sqrt(500))
    assert abs(one.bias) > SIGMA


def test_retrained_networks_cover_with_their_spread() -> None:
    """50 regressions on samples of their own, 200 toys each; σ from refits of other regressions.

    The regression has the true form, so that its only error is that of finite training. Without
    the nuisance intervals are too short by √(1 + (σ_s/σ)²), and cover erf(1/√2/√(1 + …)).
    """
    exact = learned(pool())
    expected = Likelihood(
        asimov(model(), exact, F), Rates(np.ones(2)), fraction(PROCESSES), "shape"
    )
    some = [learned(pool(), *logistic(seed)).ratio for seed in range(1000, 1012)]
    sigma = refit(expected, np.array(some), progress=False).sigma
    found = measure_coverage(
        model(), lambda number: learned(pool(), *logistic(number)), exact.ratio, 0.3,
        ensembles=50, toys=200, spread=sigma, progress=False,
    )  # fmt: skip
    assert found.spread is not None
    wanted = math.erf(1 / math.sqrt(2 * (1 + (sigma / SIGMA) ** 2)))
    assert found.plain.fraction == pytest.approx(wanted, abs=3 * found.plain.error)
    assert found.plain.error > 2 * found.plain.binomial  # toys of one ensemble are alike
    assert not found.plain.passed
    # 12 replicas know their σ to 1/√22, which moves the coverage by .16 of that
    known = 0.5 * sigma**2 / (sigma**2 + SIGMA**2) / math.sqrt(22)
    allowed = 2 * math.hypot(found.spread.error, known)
    assert abs(found.spread.fraction - ONE_SIGMA) < allowed
    rows = found.rows()
    assert [row["variant"] for row in rows["coverage"]] == ["plain", "spread"]
    assert len(rows["coverage_ensemble"]) == 100


def test_truth_of_another_shape_is_refused() -> None:
    exact = learned(pool())
    with pytest.raises(InputError, match=r"give weights \[2, N\] of the pool's events"):
        measure_coverage(model(), lambda _: exact, exact.ratio[:1], 0.3, progress=False)
