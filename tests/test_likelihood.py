"""The likelihood is that of its formula, its fits reach the exact information, and a bad density
gives no number."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from iminuit import Minuit
from pyhf.interpolators import code4

from sml_kernel import sbi
from sml_kernel.sbi.likelihood.estimates import estimate
from sml_kernel.sbi.likelihood.fisher import fisher_information
from sml_kernel.sbi.likelihood.impacts import rank_impacts
from sml_kernel.sbi.likelihood.interpolation import Interpolation
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.norms import ALPHAS, log_norms
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.likelihood.refits import refit
from sml_kernel.sbi.likelihood.strengths import Strengths, fraction, offshell, signal_strength
from sml_kernel.sbi.likelihood.toys import asimov
from sml_kernel.sbi.problems.origins import InputError

PROCESSES = ("signal", "background")


def shifted(x: np.ndarray, delta: float = 1.0) -> Ratios:
    """Exact ratios of N(δ, 1) and N(0, 1) to the latter."""
    return Ratios(PROCESSES, np.array([np.exp(delta * x - delta**2 / 2), np.ones(len(x))]))


def nuisanced(events: int = 300, mode: str = "both", seed: int = 4, **others) -> Likelihood:
    """Two nuisances on shapes and rates, Monte Carlo errors, a free normalisation, a spread."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=events) + (rng.random(events) < 0.3)
    shapes, rates = np.ones((2, 2, 2, events)), np.ones((2, 2, 2))
    for a, tilts in enumerate([(-0.1, 0.12), (0.05, -0.02)]):
        shapes[0, a] = [np.exp(t * (x - 1) - t**2 / 2) for t in tilts]
    shapes[1, 1] = [np.exp(t * x**2) * math.sqrt(1 - 2 * t) for t in (-0.1, 0.05)]
    rates[0, 0], rates[1, 1] = (0.95, 1.06), (1.1, 0.9)
    norms = np.array([[log_norms(*each) for each in of_process] for of_process in shapes])
    ratios = replace(shifted(x), nuisances=("jes", "tes"), variation=shapes, norms=norms,
                     weights=rng.uniform(0.5, 1.5, events))  # fmt: skip
    given = {"normalisations": {"k": ("background",)}, "spread": 0.1} | others
    expected = Rates(np.array([90.0, 210.0]), np.array([3.0, 5.0]), rates)
    return Likelihood(ratios, expected, signal_strength(PROCESSES), mode, **given)


# -------------------------------------------------------------------------------- interpolation


def test_interpolation_is_pyhf_code_4() -> None:
    rng = np.random.default_rng(2)
    low, high = rng.uniform(0.3, 1.8, (2, 7, 3))
    alphas = np.array([-3.2, -1.0, -0.999, -0.4, 0.0, 1e-9, 0.3, 0.99, 1.0, 2.7])
    interpolation = Interpolation.of(low, high)
    histograms = np.array([[[low[k], np.ones(3), high[k]]] for k in range(7)])
    wanted = np.asarray(code4(histograms)(np.tile(alphas, (7, 1))))[:, 0]
    found = np.array([interpolation.factor(alpha) for alpha in alphas])
    assert np.abs(found.swapaxes(0, 1) - wanted).max() < 1e-12


@pytest.mark.parametrize("alpha", [-2.0, -1.0, -0.5, 0.0, 0.7, 1.0, 1.4])
def test_slope_of_the_interpolation(alpha: float) -> None:
    """By differences; at ±1 too, where both sides have the same slope."""
    each = Interpolation.of(np.array([0.6, 1.3]), np.array([1.2, 1.1]))
    by_differences = (each.factor(alpha + 1e-6) - each.factor(alpha - 1e-6)) / 2e-6
    assert each.slope(alpha) == pytest.approx(by_differences, abs=1e-8)


# ------------------------------------------------------------------------------- normalisation


def scaled(x: np.ndarray, weights: np.ndarray, norms: bool = True) -> Ratios:
    """Exact ratios to N(0, 1) of N(1.5, 1) and N(0, 1), which a nuisance moves both by ±.2."""
    ratio = np.array([np.exp(1.5 * x - 1.125), np.ones(len(x))])
    shapes = np.array([[[np.exp(t * (x - m) - 0.02) for t in (-0.2, 0.2)]] for m in (1.5, 0)])
    found = Ratios(PROCESSES, ratio, ("scale",), shapes, weights)
    if not norms:
        return found
    nominal = weights * ratio  # weights are those of N(0, 1)
    return replace(found, norms=np.array(
        [[log_norms(*shapes[c, 0], nominal[c])] for c in range(2)]))  # fmt: skip


def test_the_mean_of_an_interpolation_is_the_exact_one() -> None:
    """g± of a normal x moved by ±t: ln E[g] = t² (α² − |α|)/2 beyond ±1, and 0 at −1, 0, 1."""
    x = np.linspace(-12, 12, 4801)
    weights = np.exp(-(x**2) / 2)
    found = log_norms(np.exp(-0.2 * x - 0.02), np.exp(0.2 * x - 0.02), weights)
    beyond = np.abs(ALPHAS) >= 1
    exact = 0.02 * (ALPHAS**2 - np.abs(ALPHAS))
    assert found[beyond] == pytest.approx(exact[beyond], abs=1e-9)
    assert found[ALPHAS == 0] == pytest.approx([0], abs=1e-12)
    with pytest.raises(InputError, match="look for variations g that are far from 1"):
        log_norms(np.full(3, 5e-4), np.full(3, 100.0))


def test_a_nuisance_beyond_its_variations_is_found() -> None:
    """What is expected at α = 1.5, exactly: g₊^1.5 over its mean is the normal moved by .3."""
    x = np.linspace(-9, 12, 4001)
    density = [np.exp(-((x - mean) ** 2) / 2) for mean in (1.8, 0.3)]
    expected = [750 * density[0] / density[0].sum(), 4250 * density[1] / density[1].sum()]
    reference = np.exp(-(x**2) / 2)
    events = scaled(x, reference).weighted(expected[0] + expected[1])
    rates = Rates(np.array([750.0, 4250.0]))
    likelihood = Likelihood(
        events, rates, signal_strength(PROCESSES), "shape", auxiliary={"scale": 1.5}
    )
    best = estimate(likelihood)
    assert best.valid
    assert best.value == pytest.approx(1, abs=1e-2)
    assert best.nuisances["scale"][0] == pytest.approx(1.5, abs=1e-2)
    plain = estimate(replace(likelihood, ratios=replace(events, norms=None)))
    assert abs(plain.nuisances["scale"][0] - 1.5) > 0.1, "the norms are what this test is about"


def test_a_nuisance_ends_at_the_limit_of_what_is_known_and_says_so() -> None:
    x, far = np.linspace(-9, 12, 4001), np.random.default_rng(2).normal(2.0, 1, 500)
    norms = scaled(x, np.exp(-(x**2) / 2)).norms
    events = replace(scaled(far, np.ones(500), norms=False), norms=norms)
    likelihood = Likelihood(events, Rates(np.array([0.1, 500.0])), signal_strength(PROCESSES))
    held = estimate(likelihood, {"mu": 1.0})
    assert held.nuisances["scale"][0] == pytest.approx(5, abs=1e-4)
    assert "scale ended at the limit of what is known" in held.reason
    beyond = estimate(likelihood, {"scale": 5.5})
    assert not beyond.valid
    assert "scale = 5.5 is not in its limits" in beyond.reason


# -------------------------------------------------------------------------------------- formula


@pytest.mark.parametrize("mode", ["shape", "yield", "both"])
def test_value_is_the_formula_written_out(mode: str) -> None:
    likelihood = nuisanced(40, mode)
    likelihood = replace(likelihood, ratios=replace(likelihood.ratios, norms=None))
    values = {"mu": 1.3, "k": 0.9, "jes": 0.4, "tes": -1.5, "mc_signal": 0.7,
              "mc_background": -0.2, "spread": 0.8}  # fmt: skip
    names = [name for name in values if name != "spread" or mode != "yield"]
    assert likelihood.parameters == tuple(names)

    def yields(mu: float) -> list[float]:
        signal = 90 * mu * math.exp(0.7 * 3 / 90) * Interpolation.of(0.95, 1.06).factor(0.4)
        other = 210 * 0.9 * math.exp(-0.2 * 5 / 210) * 1.1**1.5
        return [signal, other]

    total, ratios = 0.0, likelihood.ratios
    for i, weight in enumerate(ratios.weights):
        signal, background = ratios.ratio[:, i]
        signal *= Interpolation.of(*ratios.variation[0, 0, :, i]).factor(0.4)
        signal *= ratios.variation[0, 1, 0, i] ** 1.5
        background *= ratios.variation[1, 1, 0, i] ** 1.5
        s, b = yields(1.3 + 0.1 * 0.8)
        if mode != "yield":
            total -= 2 * weight * math.log((s * signal + b * background) / (s + b))
    if mode != "shape":
        nu = sum(yields(1.3))
        total -= 2 * (ratios.weights.sum() * math.log(nu) - nu)
    total += sum(values[name] ** 2 for name in names[2:])
    assert likelihood.value(np.array([values[n] for n in names])) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("mode", ["shape", "yield", "both"])
def test_gradient_is_that_of_the_value(mode: str) -> None:
    likelihood = nuisanced(mode=mode, auxiliary={"jes": 0.3})
    rng = np.random.default_rng(1)
    for scale in (0.0, 0.3, 1.2):
        at = likelihood.start + scale * np.abs(rng.normal(size=len(likelihood.start)))
        steps = 1e-5 * np.eye(len(at))
        differences = [
            (likelihood.value(at + step) - likelihood.value(at - step)) / 2e-5 for step in steps
        ]
        assert likelihood.gradient(at) == pytest.approx(np.array(differences), abs=2e-5)


def test_interference_has_the_exact_likelihood() -> None:
    """Signal, SBI and background with exact ratios: −2 ln L differs as the family's own does."""
    family = sbi.QuadraticInterference()
    x, _ = family.sample(1.0, 600, np.random.default_rng(3))
    ratios = np.exp([sbi.log_ratio(family, x, name, "B") for name in family.classes])
    rates = np.array([family.expected(name) for name in family.classes])
    likelihood = Likelihood(Ratios(family.classes, ratios), Rates(rates), offshell(family.classes))
    strengths = (0.2, 0.7, 1.0, 2.5)
    found = [likelihood.value(np.array([mu])) for mu in strengths]
    wanted = [-2 * family.log_likelihood(x, mu) for mu in strengths]
    assert np.diff(found) == pytest.approx(np.diff(wanted), abs=1e-8)
    best = estimate(likelihood)
    assert best.valid
    assert likelihood.gradient(best.values) == pytest.approx([0], abs=0.05 / best.error)
    assert estimate(replace(likelihood, strengths=Strengths(offshell(family.classes).of, lower=0.0))
                    ).value == pytest.approx(best.value, abs=0.01 * best.error)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_deepest_of_several_minima_is_found(seed: int) -> None:
    """Events at μ = 4 in one feature: interference makes a second valley, where the fit starts."""
    family = sbi.QuadraticInterference(
        signal=30.0, background=300.0, dimensions=1, separation=0.5, phase=3.1, frequency=0.3
    )
    x, _ = family.sample(4.0, 40 + 60 * seed, np.random.default_rng(seed))
    ratios = np.exp([sbi.log_ratio(family, x, name, "B") for name in family.classes])
    rates = np.array([family.expected(name) for name in family.classes])
    strengths = replace(offshell(family.classes), start=9.5)
    likelihood = Likelihood(Ratios(family.classes, ratios), Rates(rates), strengths, "shape")
    scan = np.linspace(0, 12, 1201)[:, None]
    values = np.array([likelihood.value(mu) for mu in scan])
    best = estimate(likelihood)
    assert best.valid
    assert best.minimum <= np.nanmin(values) + 1e-5


# ----------------------------------------------------------------------------------------- fits


@pytest.mark.parametrize(("delta", "sigma"), [(1.0, 0.0338), (2.0, 0.01996)])
def test_a_fraction_is_measured_as_well_as_can_be(delta: float, sigma: float) -> None:
    information = fisher_information(sbi.MixtureFraction(delta), 0.3, 1000)
    assert information.sigma("shape") == pytest.approx(sigma, rel=2e-3)
    assert math.isinf(information.sigma("yield"))
    pool = shifted(np.random.default_rng(1).standard_normal(200_000), delta)
    model = Likelihood(pool.take(np.arange(1000)), Rates(np.ones(2)), fraction(PROCESSES), "shape")
    expected = replace(model, ratios=asimov(model, pool, np.array([0.3])))
    best = estimate(expected)
    assert best.error == pytest.approx(information.sigma("shape"), rel=0.02)


@pytest.mark.parametrize("mode", ["shape", "yield", "both"])
def test_interference_reaches_its_information(mode: str) -> None:
    """Second derivative at μ = 1 of what is expected there, with the statistical error of both."""
    family = sbi.QuadraticInterference()
    x, _ = family.sample(1.0, 100_000, np.random.default_rng(6))
    ratios = np.exp([sbi.log_ratio(family, x, name, "SBI") for name in family.classes])
    rates = Rates(np.array([family.expected(name) for name in family.classes]))
    weights = np.full(len(x), family.expected(1.0) / len(x))
    events = Ratios(family.classes, ratios, weights=weights)
    likelihood = Likelihood(events, rates, offshell(family.classes), mode)
    slopes = [likelihood.gradient(np.array([mu]))[0] for mu in (1.001, 0.999)]
    information = fisher_information(family, 1.0)
    found = math.sqrt(2 / ((slopes[0] - slopes[1]) / 0.002))
    allowed = 4 * information.error / information.shape
    assert found == pytest.approx(information.sigma(mode), rel=allowed)
    if mode == "both":  # events that interfere carry more than their number does
        assert information.sigma("shape") < information.sigma("yield")


def test_the_spread_adds_in_quadrature() -> None:
    x = np.random.default_rng(1).normal(size=1000) + (np.arange(1000) % 10 < 3)
    plain = Likelihood(shifted(x), Rates(np.ones(2)), fraction(PROCESSES), "shape")
    without, with_spread = estimate(plain), estimate(replace(plain, spread=0.04))
    assert with_spread.value == pytest.approx(without.value, abs=1e-4)
    assert with_spread.error == pytest.approx(math.hypot(without.error, 0.04), rel=1e-3)


def test_pulls_and_impacts_of_a_counting_experiment() -> None:
    """n = μ s + b (1 + .1 α): α costs μ̂ a shift of ∓.1 b/s, and data cannot constrain it."""
    rates = Rates(np.array([50.0, 100.0]), variation=np.array([[[1, 1]], [[0.9, 1.1]]], float))
    ratios = Ratios(PROCESSES, np.ones((2, 160)), ("norm",))
    likelihood = Likelihood(ratios, rates, signal_strength(PROCESSES), "yield")
    ranked = rank_impacts(likelihood)
    assert ranked.estimate.value == pytest.approx(1.2, abs=1e-3)
    assert ranked.estimate.error == pytest.approx(math.hypot(math.sqrt(160) / 50, 0.2), rel=1e-2)
    (row,) = ranked.rows()
    assert (row["parameter"], row["pull"]) == ("norm", pytest.approx(0, abs=1e-3))
    assert row["constraint"] == pytest.approx(1, abs=1e-3)
    assert (row["up"], row["down"]) == (pytest.approx(-0.2, 1e-2), pytest.approx(0.2, 1e-2))


def test_all_kinds_of_parameters_are_fitted_together() -> None:
    """The covariance is that of MINUIT's HESSE, which knows the values alone."""
    likelihood = nuisanced(400)
    best = estimate(likelihood)
    assert best.valid, best.reason
    assert set(best.nuisances) == {"k", "jes", "tes", "mc_signal", "mc_background", "spread"}
    minuit = Minuit(likelihood.value, best.values)
    minuit.errordef, minuit.strategy, minuit.errors = 1, 2, best.errors
    minuit.hesse()
    assert best.errors == pytest.approx(np.array(minuit.errors), rel=1e-3)
    assert best.covariance == pytest.approx(np.array(minuit.covariance), abs=1e-3)


def test_refits_give_the_spread_of_replicas() -> None:
    """Ratios that are off by a tilt ε move f̂ by a slope times ε; so is its spread."""
    x = np.random.default_rng(2).normal(size=4000) + (np.arange(4000) % 10 < 3)
    likelihood = Likelihood(shifted(x), Rates(np.ones(2)), fraction(PROCESSES), "shape")
    tilts = np.random.default_rng(3).normal(0, 0.01, 12)
    replicas = np.array([[np.exp((1 + tilt) * x - 0.5), np.ones(len(x))] for tilt in tilts])
    ends = refit(likelihood, replicas[[tilts.argmin(), tilts.argmax()]], progress=False)
    slope = np.diff(ends.values)[0] / np.ptp(tilts)
    found = refit(likelihood, replicas, progress=False)
    assert found.sigma == pytest.approx(abs(slope) * tilts.std(ddof=1), rel=0.02)
    assert [row["replica"] for row in found.rows()] == list(range(12))


# ----------------------------------------------------------------- no number where there is none


def test_a_density_below_zero_has_a_reason_and_a_count() -> None:
    rng = np.random.default_rng(5)
    ratio = np.abs(rng.normal(size=(3, 50))) + 0.5
    ratio[:, :7] *= -1  # as a bad regression of interference may give
    likelihood = Likelihood(
        Ratios(("S", "SBI", "B"), ratio),
        Rates(np.array([10.0, 60, 50])),
        offshell(("S", "SBI", "B")),
    )
    best = estimate(likelihood)
    assert not best.valid
    assert math.isnan(best.value)
    assert math.isnan(best.error)
    assert best.not_positive == 7
    assert "7 of 50 events" in best.reason
    assert math.isnan(likelihood.value(np.array([1.0])))
    with pytest.raises(InputError, match="2 of 2 replicas have no fit, first replica 0: no dens"):
        refit(likelihood, np.stack([ratio, ratio]), progress=False)


def test_wrong_input_is_named() -> None:
    ratios = shifted(np.zeros(3))
    with pytest.raises(InputError, match="not finite at 1 places, first at \\(0, 2\\)"):
        Ratios(PROCESSES, np.array([[1, 1, np.nan], [1, 1, 1]]))
    with pytest.raises(InputError, match="no mode 'binned'; there are shape, yield, both"):
        Likelihood(ratios, Rates(np.ones(2)), fraction(PROCESSES), "binned")
    with pytest.raises(InputError, match="k scales ttbar: known are signal, background"):
        Likelihood(ratios, Rates(np.ones(2)), fraction(PROCESSES), normalisations={"k": ["ttbar"]})
    with pytest.raises(InputError, match="signal processes higgs: there are signal, background"):
        signal_strength(PROCESSES, ("higgs",))
    with pytest.raises(InputError, match="parameters mu come twice"):
        Likelihood(
            replace(ratios, nuisances=("mu",)), Rates(np.ones(2)), signal_strength(PROCESSES)
        )
