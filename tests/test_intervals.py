"""Toys fitted many at once are those fitted one by one; intervals are those of counting by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sml_kernel import records
from sml_kernel.sbi.likelihood.estimates import estimate
from sml_kernel.sbi.likelihood.intervals import ONE_SIGMA, confidence_intervals
from sml_kernel.sbi.likelihood.lines import Lines, fit_lines, minimum_at
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.neyman import neyman_belt, quantile
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.likelihood.strengths import fraction, signal_strength
from sml_kernel.sbi.likelihood.toys import draws, fit_toys
from sml_kernel.sbi.problems.origins import InputError

PROCESSES = ("signal", "background")


def shifted(x: np.ndarray) -> Ratios:
    """Exact ratios of N(1, 1) and N(0, 1) to the latter."""
    return Ratios(PROCESSES, np.array([np.exp(x - 0.5), np.ones(len(x))]))


def reference(events: int) -> Ratios:
    return shifted(np.random.default_rng(1).standard_normal(events))


def mixed(events: int, seed: int = 5) -> Ratios:
    rng = np.random.default_rng(seed)
    return shifted(rng.normal(size=events) + (rng.random(events) < 0.3))


def counting(observed: int, background: float = 3.0) -> Likelihood:
    """n is Poisson about μ + b, μ ≥ 0."""
    ratios = Ratios(PROCESSES, np.ones((2, observed)))
    strengths = signal_strength(PROCESSES, lower=0.0)
    return Likelihood(ratios, Rates(np.array([1.0, background])), strengths, "yield")


# ----------------------------------------------------------------------------------------- toys


@pytest.mark.parametrize("lower", [-math.inf, 0.9])
@pytest.mark.parametrize("spread", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["shape", "yield", "both"])
def test_many_toys_at_once_are_fitted_as_one_by_one(mode: str, spread: float, lower: float) -> None:
    """Against MINUIT on the same events, also where μ̂ is at a limit and β was measured off 0."""
    pool, rng = mixed(4000), np.random.default_rng(7)
    rates = Rates(np.array([60.0, 140.0]))
    strengths = signal_strength(PROCESSES, lower=lower)
    likelihood = Likelihood(pool, rates, strengths, mode, spread=spread)
    counts, measured = np.array([180, 211, 240, 150]), np.array([0.0, 1.3, -0.8, 0.5])
    if not spread or mode == "yield":
        measured[:] = 0
    constant, slope = np.ones((4, 240)), np.zeros((4, 240))
    toys = []
    for k, count in enumerate(counts):
        events = pool.take(rng.integers(0, 4000, count))
        slope[k, :count], constant[k, :count] = rates.expected[:, None] * events.ratio
        auxiliary = {"spread": measured[k]} if measured[k] else {}
        toys.append(replace(likelihood, ratios=events, auxiliary=auxiliary))
    lines = Lines(
        constant, slope, counts, 140.0, 60.0, mode, spread, lower, shift=spread * measured
    )
    found, held = fit_lines(lines, 1.0), minimum_at(lines, 1.2)
    for k, toy in enumerate(toys):
        best = estimate(toy)
        assert best.valid
        assert found.values[k] == pytest.approx(best.value, abs=5e-3 * best.error)
        at_limit = best.value - lower < best.error
        if not at_limit:
            assert found.errors[k] == pytest.approx(best.error, rel=5e-3)
        at = estimate(toy, {"mu": 1.2}, errors=False)
        assert held[k] - found.minima[k] == pytest.approx(at.minimum - best.minimum, abs=2e-4)


def test_toys_with_nuisances_have_a_chi_square() -> None:
    """One by one, with constraints thrown: q of the true μ is below 1 in 68 % of the toys."""
    pool, rng = reference(20_000), np.random.default_rng(3)
    rates = Rates(np.array([60.0, 140.0]), variation=np.array([[[1, 1]], [[0.9, 1.1]]], float))
    pool = replace(pool, nuisances=("norm",))
    model = Likelihood(pool.take(np.arange(200)), rates, signal_strength(PROCESSES), "yield")
    thrown = draws(model, pool, np.array([1.0, 0.0]))
    fits = fit_toys(model, pool, thrown, np.array([1.0, 0.0]), 250, rng)
    assert np.isfinite(fits.ratios).all()
    below = (fits.ratios <= 1).mean()
    assert abs(below - ONE_SIGMA) < 3 * math.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / 250)
    pulls = (fits.values - 1) / fits.errors
    assert pulls.std() == pytest.approx(1, abs=3 / math.sqrt(2 * 250))


@pytest.mark.parametrize("delta", [1.0, 3.0])
def test_fits_turn_round_where_densities_end(delta: float) -> None:
    """Dozens of samples of a few events, whose best f may lie at the edge of the domain."""
    rng = np.random.default_rng(6)
    for events in rng.integers(3, 15, 30):
        x = rng.normal(size=events) + delta * (rng.random(events) < 0.3)
        if (x > delta / 2).all() or (x < delta / 2).all():
            continue  # all events like the same process better: there is no minimum
        ratio = np.array([np.exp(delta * x - delta**2 / 2), np.ones(events)])
        model = Likelihood(
            Ratios(PROCESSES, ratio), Rates(np.ones(2)), fraction(PROCESSES), "shape"
        )
        lines = Lines(ratio[1:], ratio[:1] - 1, np.array([events]), 1.0, 0.0, "shape")
        best = estimate(model)
        assert best.valid, best.reason
        assert best.minimum == pytest.approx(fit_lines(lines, 0.5).minima[0], abs=1e-4)


def test_a_small_pool_is_warned_of_and_a_signed_one_refused() -> None:
    pool = reference(2000)
    model = Likelihood(pool.take(np.arange(100)), Rates(np.ones(2)), fraction(PROCESSES), "shape")
    with pytest.warns(UserWarning, match="take at least 10,000"):
        draws(model, pool, np.array([0.3])).warn_if_small()
    with pytest.raises(InputError, match="of 2000 events of the pool have a negative probability"):
        draws(model, pool, np.array([-5.0]))


# ------------------------------------------------------------------------------------ intervals


def test_wilks_ends_where_q_is_the_quantile() -> None:
    model = Likelihood(mixed(1000), Rates(np.ones(2)), fraction(PROCESSES), "shape")
    for level in (0.6827, 0.95):
        found = confidence_intervals(model, level=level)
        for end in (found.wilks.low, found.wilks.high):
            held = estimate(model, {"f": end}, errors=False)
            q = held.minimum - found.estimate.minimum
            assert q == pytest.approx(stats.chi2.ppf(level, 1), abs=1e-3)
        assert found.wilks.low < found.estimate.value < found.wilks.high


def test_belt_of_a_counting_experiment_is_that_of_feldman_and_cousins() -> None:
    """Critical values by summing Poisson probabilities in the order of the likelihood ratio."""
    level, background, toys = 0.9, 3.0, 4000
    strengths = np.array([0.0, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0])
    pool = Ratios(PROCESSES, np.ones((2, 5000)))
    belt = neyman_belt(counting(4), pool, strengths[:, None], level, toys, seed=1, progress=False)
    n = np.arange(60)
    best = np.maximum(n, background)
    for mu, low, high in zip(strengths, belt.critical_low, belt.critical_high, strict=True):
        nu = mu + background
        q = 2 * (nu - best) - 2 * n * np.log(nu / best)
        order = np.argsort(q)
        summed = np.cumsum(stats.poisson.pmf(n, nu)[order])
        off = 2 * math.sqrt(level * (1 - level) / toys)  # within which the step may be another
        ends = [q[order][np.searchsorted(summed, level + sign * off)] for sign in (-1, 1)]
        assert low <= ends[1] + 1e-9
        assert high >= ends[0] - 1e-9


@pytest.mark.parametrize(("observed", "wanted"), [(4, (0.0, 5.60)), (9, (1.88, 12.30))])
def test_intervals_of_the_feldman_cousins_paper(observed: int, wanted: tuple[float, float]) -> None:
    """Table IV of PRD 57 (1998) 3873: 90 % for b = 3. Wilks differs near the limit."""
    pool = Ratios(PROCESSES, np.ones((2, 2000)))
    top = wanted[1] + 2
    found = confidence_intervals(
        counting(observed), pool, method="neyman", level=0.9, toys=4000,
        grid=np.linspace(0, top, 41), progress=False,
    )  # fmt: skip
    assert found.neyman is not None
    step = top / 40
    assert found.neyman.low == pytest.approx(wanted[0], abs=1.5 * step)
    assert found.neyman.high == pytest.approx(wanted[1], abs=1.5 * step)
    if wanted[0] == 0:
        assert found.neyman.low_reason == "limit of the strength"


def test_intervals_agree_where_wilks_holds_and_are_recorded(tmp_path) -> None:
    rates = Rates(np.array([300.0, 700.0]))
    model = Likelihood(mixed(1000), rates, signal_strength(PROCESSES))
    found = confidence_intervals(
        model, reference(130_000), method="neyman", toys=1000, progress=False,
        grid=estimate(model).value + 0.13 * np.linspace(-1, 1, 5),
    )  # fmt: skip
    assert found.neyman is not None
    width = found.wilks.high - found.wilks.low
    # 3 binomial errors of c, which is 2 φ(1) per unit of μ/σ, and as much for two such points
    allowed = 3 * math.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / 1000) / 0.484 * width / 2
    for end in ("low", "high"):
        low, high = getattr(found.neyman, f"{end}_errors")
        assert low <= getattr(found.neyman, end) <= high
        assert abs(getattr(found.neyman, end) - getattr(found.wilks, end)) < allowed
    run = records.start(tmp_path / "run", kind="inference", parameters={})
    with run.writer() as writer:
        for kind, rows in found.rows().items():
            for row in rows:
                writer.append(kind, **row)
    run.finish()
    read = records.read(run.folder)
    assert (read["kind"] == "belt").sum() == 5
    assert set(read.loc[read["kind"] == "interval", "method"]) == {"wilks", "neyman"}


def test_the_same_seed_gives_the_same_interval() -> None:
    model, pool = counting(9), Ratios(PROCESSES, np.ones((2, 2000)))
    how = {"method": "neyman", "toys": 200, "grid": np.linspace(0, 13, 14), "progress": False}
    first, again = (confidence_intervals(model, pool, seed=3, **how) for _ in range(2))
    assert first.neyman == again.neyman
    assert first.neyman != confidence_intervals(model, pool, seed=4, **how).neyman


def test_an_end_that_is_not_found_is_nan_with_its_reason() -> None:
    pool = Ratios(PROCESSES, np.ones((2, 2000)))
    found = confidence_intervals(
        counting(9), pool, method="neyman", toys=200, grid=[5.0, 6.0, 7.0], progress=False
    )
    assert found.neyman is not None
    assert math.isnan(found.neyman.high)
    assert "the grid ends at 7, which is accepted" in found.neyman.high_reason
    flat = Likelihood(mixed(50), Rates(np.ones(2)), fraction(PROCESSES), "yield")
    nothing = confidence_intervals(flat)
    assert math.isnan(nothing.wilks.low)
    assert not nothing.estimate.valid  # nothing is known of a fraction from the number of events
    assert nothing.wilks.low_reason == nothing.estimate.reason != ""


def test_no_events_at_all_give_an_upper_limit() -> None:
    """n = 0: μ̂ is at its limit, −2 ln L rises from there by 2 a unit, and has no curvature."""
    found = confidence_intervals(counting(0))
    assert found.estimate.value == pytest.approx(0, abs=1e-9)
    assert math.isnan(found.estimate.error)
    assert (found.wilks.low, found.wilks.low_reason) == (0, "limit of the strength")
    assert found.wilks.high == pytest.approx(0.5, abs=1e-3)


def test_failed_toys_count_as_beyond_any_quantile() -> None:
    ratios = np.array([*np.arange(1.0, 91.0), *[np.nan] * 10])
    assert quantile(ratios, 0.5)[0] == 51
    assert math.isnan(quantile(ratios, 0.95)[0])
