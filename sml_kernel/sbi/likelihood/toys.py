r"""Toys of a likelihood: samples such as would be observed, drawn from a pool of reference events.

A toy at parameters (μ, α) has n events, Poisson distributed about ν(μ, α), or as many as were
observed where only the shape is fitted. Each is drawn from the pool with replacement, with a
probability in proportion to v_i Σ_c ν_c r_c(x_i) g_c(x_i, α), v being the pool's own weights. What
was measured of constrained parameters elsewhere is thrown too, and so are control regions.

*How large a pool.* With probabilities P the pool is worth 1/Σ P² events. It stands in for the true
distribution: that it is finite moves the mean of the estimates of all toys by about √(n/n_eff) of
their width. Below `POOL_FACTOR` = 100 times the events of a toy (a tenth of the width, which takes
half a percent from the coverage) there is a warning.

A pool of reference events gives toys of the *model*, by which intervals are calibrated. Whether
intervals cover is asked with toys of the *truth*: see `sml_kernel.sbi.likelihood.coverage`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sml_kernel.sbi.likelihood.estimates import Estimate, estimate
from sml_kernel.sbi.likelihood.lines import LineFits, Lines, fit_lines, minimum_at
from sml_kernel.sbi.likelihood.model import SPREAD, Likelihood
from sml_kernel.sbi.likelihood.ratios import Ratios
from sml_kernel.sbi.problems.origins import InputError

POOL_FACTOR = 100
_VALUES_AT_ONCE = 1 << 18  # events in an array of toys: 2 MB, which the cache holds


@dataclass(frozen=True, eq=False)
class Draws:
    """How to draw toys from a pool.

    Attributes
    ----------
    cumulative
        [N] sums of the probabilities.
    expected
        Mean number of events of a toy.
    fixed
        Whether all have that number.
    effective
        What the pool is worth, in events.
    throws_spread
        Whether β of the spread is measured anew in each toy, as other constrained parameters are.
        So it is in toys of the model, whose networks have no error; in toys of the truth the
        networks' own error is what β stands for.
    """

    cumulative: np.ndarray
    expected: float
    fixed: bool
    effective: float
    throws_spread: bool

    @classmethod
    def of(
        cls, density: np.ndarray, expected: float, fixed: bool, throws_spread: bool = True
    ) -> Draws:
        """Of probabilities in proportion to `density` [N].

        Raises
        ------
        InputError
            Some are negative, so that nothing can be drawn from them, or all are zero.
        """
        if not (density >= 0).all() or not density.sum() > 0:
            raise InputError(
                f"{int((~(density >= 0)).sum())} of {len(density)} events of the pool have a "
                "negative probability: toys cannot be drawn from it; mend the ratios, or give a "
                "pool of events of positive weight"
            )
        if not (math.isfinite(expected) and expected > 0):
            raise InputError(f"a toy would have {expected:g} events: rates must sum above zero")
        cumulative = np.cumsum(density)
        total = cumulative[-1]
        effective = float(total**2 / (density @ density))
        return cls(cumulative / total, expected, fixed, effective, throws_spread)

    @property
    def adequacy(self) -> float:
        """Events that the pool is worth over those of a toy: `POOL_FACTOR` or more is enough."""
        return self.effective / self.expected

    def warn_if_small(self) -> None:
        """Warn where `adequacy` is below `POOL_FACTOR`."""
        if self.adequacy < POOL_FACTOR:
            shift = math.sqrt(self.expected / self.effective)
            warnings.warn(
                f"the pool is worth {self.effective:,.0f} events for toys of {self.expected:,.0f}:"
                f" it moves estimates by about {shift:.0%} of their width; take at least "
                f"{POOL_FACTOR * self.expected:,.0f}",
                stacklevel=3,
            )

    def counts(self, toys: int, rng: np.random.Generator) -> np.ndarray:
        """[T] events of each toy."""
        if self.fixed:
            return np.full(toys, round(self.expected))
        return rng.poisson(self.expected, toys)

    def rows(self, events: int, rng: np.random.Generator) -> np.ndarray:
        """[n] rows of the pool, independent of each other.

        Numbers are sorted before they are looked up and shuffled after, since a search through a
        large pool at random misses the cache at every step: five times as fast.
        """
        rows = np.searchsorted(self.cumulative, np.sort(rng.random(events)), side="right")
        return rng.permutation(rows.clip(max=len(self.cumulative) - 1))


def draws(likelihood: Likelihood, pool: Ratios, parameters: np.ndarray) -> Draws:
    """Draws of the model at [P] parameters, without the shift of the spread, from a pool."""
    unmoved = replace(likelihood, ratios=pool, spread=0.0, auxiliary={})
    places = [likelihood.parameters.index(name) for name in unmoved.parameters]
    density = unmoved.density(np.asarray(parameters)[places]) * pool.event_weights
    fixed = likelihood.mode == "shape"
    expected = likelihood.observed if fixed else likelihood.expected(parameters)
    return Draws.of(density, expected, fixed)


def asimov(likelihood: Likelihood, pool: Ratios, parameters: np.ndarray) -> Ratios:
    """The pool weighted to be what is expected at [P] parameters: one sample for all toys."""
    thrown = draws(likelihood, pool, parameters)
    share = np.diff(thrown.cumulative, prepend=0.0)
    return pool.weighted(share * thrown.expected)


def throw(
    likelihood: Likelihood,
    pool: Ratios,
    thrown: Draws,
    parameters: np.ndarray,
    toys: int,
    rng: np.random.Generator,
) -> Iterator[Likelihood]:
    """Toy after toy: the likelihood of what one more experiment observed; see `fit_toys`."""
    values = dict(zip(likelihood.parameters, parameters, strict=True))
    measured = [name for name in likelihood.constrained if thrown.throws_spread or name != SPREAD]
    for count in thrown.counts(toys, rng):
        control = likelihood.control
        if control is not None:
            control = control.thrown(likelihood.control_values(parameters), rng)
        yield replace(
            likelihood,
            ratios=pool.take(thrown.rows(int(count), rng)),
            control=control,
            auxiliary={name: rng.normal(values[name]) for name in measured},
        )


def is_plain(likelihood: Likelihood) -> bool:
    """Whether many toys can be fitted at once: linear strengths, no nuisance but the spread."""
    others = [name for name in likelihood.parameters[1:] if name != SPREAD]
    return likelihood.strengths.linear and not others


@dataclass(frozen=True, eq=False)
class ToyFits:
    """Fits of T toys; nan where one has no valid fit.

    Attributes
    ----------
    values, errors
        [T] μ̂ and its error.
    ratios
        [T] q(μ) = −2 ln L(μ)/L(μ̂), each at its least in the other parameters.
    """

    values: np.ndarray
    errors: np.ndarray
    ratios: np.ndarray


def fit_toys(
    likelihood: Likelihood,
    pool: Ratios,
    thrown: Draws,
    parameters: np.ndarray,
    toys: int,
    rng: np.random.Generator,
    *,
    errors: bool = True,
) -> ToyFits:
    """Throw and fit toys.

    Parameters
    ----------
    likelihood
        What is fitted to each.
    pool
        Ratios as the fit has them, of the events that `thrown` draws.
    thrown
        From `draws`, or from the true densities of the same events.
    parameters
        [P] where toys are thrown, for constraints and control regions; q is taken at its first.
    toys
        T.
    errors
        Whether those of toys that are fitted one by one are calculated, for pulls; else nan.
    """
    if is_plain(likelihood):
        return _fit_plain(likelihood, pool, thrown, parameters[0], toys, rng)
    fits = []
    for toy in throw(likelihood, pool, thrown, parameters, toys, rng):
        free = estimate(toy, start=parameters, errors=errors)
        held = estimate(toy, {toy.parameters[0]: parameters[0]}, start=parameters, errors=False)
        fits.append((free.value, free.error, _difference(free, held)))
    return ToyFits(*np.array(fits).reshape(toys, 3).T)


def _difference(free: Estimate, held: Estimate) -> float:
    return max(held.minimum - free.minimum, 0.0) if free.valid and held.valid else math.nan


def _fit_plain(
    likelihood: Likelihood,
    pool: Ratios,
    thrown: Draws,
    mu: float,
    toys: int,
    rng: np.random.Generator,
) -> ToyFits:
    at_zero, at_one = likelihood.strengths.at(0.0), likelihood.strengths.at(1.0)
    rates = np.asarray(likelihood.rates.expected, float)
    constant = (at_zero * rates) @ pool.ratio
    slope = ((at_one - at_zero) * rates) @ pool.ratio
    parts: list[tuple[LineFits, np.ndarray]] = []
    at_once = max(1, int(_VALUES_AT_ONCE / max(1, thrown.expected)))
    for begin in range(0, toys, at_once):
        counts = thrown.counts(min(at_once, toys - begin), rng)
        lines = _lines(likelihood, constant, slope, thrown, counts, rng)
        fits = fit_lines(lines, mu)
        parts.append((fits, np.maximum(minimum_at(lines, mu) - fits.minima, 0)))
    return ToyFits(
        np.concatenate([fits.values for fits, _ in parts]),
        np.concatenate([fits.errors for fits, _ in parts]),
        np.concatenate([ratios for _, ratios in parts]),
    )


def _lines(
    likelihood: Likelihood,
    constant: np.ndarray,
    slope: np.ndarray,
    thrown: Draws,
    counts: np.ndarray,
    rng: np.random.Generator,
) -> Lines:
    strengths, rates = likelihood.strengths, np.asarray(likelihood.rates.expected, float)
    base, total = float(strengths.at(0.0) @ rates), float(strengths.at(1.0) @ rates)
    filled = np.arange(counts.max(initial=0)) < counts[:, None]
    events = thrown.rows(int(counts.sum()), rng)
    a, b = np.ones(filled.shape), np.zeros(filled.shape)
    a[filled], b[filled] = constant[events], slope[events]
    spread = likelihood.spread
    shift = spread * rng.standard_normal(len(counts)) if spread and thrown.throws_spread else None
    return Lines(a, b, counts, base, total - base, likelihood.mode, spread,
                 strengths.lower, strengths.upper, shift)  # fmt: skip
