r"""How often an interval holds the true value: asked of toys of the truth, not of the model.

A pool of simulated events has, for each process, the weights that make it that process: the label
times the weight of a simulated event, or the exact density ratio. Toys are drawn by these, and
fitted with ratios that networks learned, so that the networks' errors count.

One ensemble of networks has one bias, common to all its toys: its coverage is a number about that
ensemble, with a binomial error. How a *procedure* covers that includes training is asked of
ensembles that were trained anew, on training samples of their own. Toys of one ensemble are then
alike, so that the error follows from the scatter between E ensembles,

.. math::
    \hat{c} = \frac1E \sum_e \hat{c}_e, \qquad
    σ² = \frac{1}{E (E − 1)} \sum_e (\hat{c}_e − \hat{c})²

An interval covers if ĉ is within 2σ of the level: for one ensemble of 1,000 toys in [.653, .712].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sml_kernel.sbi.likelihood.intervals import ONE_SIGMA
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.ratios import Ratios
from sml_kernel.sbi.likelihood.toys import Draws, ToyFits, fit_toys
from sml_kernel.sbi.problems.origins import InputError


@dataclass(frozen=True)
class EnsembleCoverage:
    """What toys of one ensemble gave.

    Attributes
    ----------
    ensemble
        Its number.
    spread
        σ of the spread nuisance; 0 where there was none.
    toys, covered, failed
        Thrown; with the true value in the interval; without a valid fit. Those failed count as not
        covered.
    bias, pull_mean, pull_width, error
        Mean of μ̂ − μ; mean and standard deviation of (μ̂ − μ)/σ̂; median σ̂. Of fits with σ̂.
    """

    ensemble: int
    spread: float
    toys: int
    covered: int
    failed: int
    bias: float
    pull_mean: float
    pull_width: float
    error: float

    @property
    def fraction(self) -> float:
        """Share of the toys whose interval holds the true value."""
        return self.covered / self.toys


@dataclass(frozen=True)
class Covered:
    """Coverage over all ensembles.

    Attributes
    ----------
    variant
        ``plain``, or ``spread`` with the spread as a nuisance.
    level
        What was asked for.
    ensembles
        Each one's.
    """

    variant: str
    level: float
    ensembles: tuple[EnsembleCoverage, ...]

    @property
    def fraction(self) -> float:
        """Mean over the ensembles."""
        return float(np.mean([each.fraction for each in self.ensembles]))

    @property
    def binomial(self) -> float:
        """Standard deviation of `fraction` if all toys were independent and covered at `level`."""
        return math.sqrt(self.level * (1 - self.level) / sum(e.toys for e in self.ensembles))

    @property
    def error(self) -> float:
        """Standard deviation of `fraction`: from the scatter of ensembles, but not below the
        binomial one, which is that of a single ensemble."""
        if len(self.ensembles) == 1:
            return self.binomial
        scatter = np.std([each.fraction for each in self.ensembles], ddof=1)
        return max(float(scatter) / math.sqrt(len(self.ensembles)), self.binomial)

    @property
    def band(self) -> tuple[float, float]:
        """Level ± 2 errors."""
        return self.level - 2 * self.error, self.level + 2 * self.error

    @property
    def passed(self) -> bool:
        """Whether `fraction` is in the band."""
        low, high = self.band
        return low <= self.fraction <= high


@dataclass(frozen=True)
class Coverage:
    """Made by `measure_coverage`.

    Attributes
    ----------
    at
        The true strength.
    plain
        Without the spread nuisance.
    spread
        With it, on the same toys; None where no spread was given.
    """

    at: float
    plain: Covered
    spread: Covered | None = None

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Plain rows by kind of record: ``coverage``, and ``coverage_ensemble`` for each."""
        variants = [each for each in (self.plain, self.spread) if each is not None]
        return {
            "coverage": [
                {
                    "at": self.at,
                    "variant": each.variant,
                    "level": each.level,
                    "fraction": each.fraction,
                    "error": each.error,
                    "binomial": each.binomial,
                    "band": list(each.band),
                    "passed": each.passed,
                    "ensembles": len(each.ensembles),
                    "toys": sum(one.toys for one in each.ensembles),
                    "failed": sum(one.failed for one in each.ensembles),
                }
                for each in variants
            ],
            "coverage_ensemble": [
                {"at": self.at, "variant": each.variant, "fraction": one.fraction, **vars(one)}
                for each in variants
                for one in each.ensembles
            ],
        }


def measure_coverage(
    likelihood: Likelihood,
    ratios: Callable[[int], Ratios],
    truth: np.ndarray,
    at: float,
    *,
    ensembles: int = 1,
    toys: int = 1000,
    spread: float | Callable[[int], float] | None = None,
    level: float = ONE_SIGMA,
    critical: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Coverage:
    """Throw toys of the truth, and count in how many the interval holds the true strength.

    Parameters
    ----------
    likelihood
        The model with its rates, strengths and mode. Its own events only say how many a toy has in
        mode ``shape``; in the others that is Poisson about ν.
    ratios
        Number of an ensemble → its ratios of the N pool events, which no network was trained on.
    truth
        [C, N] weights that make the pool each process: by processes, only proportions count. Sums
        are above zero, and so must be what is drawn from, Σ s_c(μ) ν_c truth_c.
    at
        The true strength. Other parameters are true at their nominal values.
    ensembles, toys
        E, and toys of each: 1 and 1000, or 50 and 200.
    spread
        σ of the spread nuisance, for all ensembles or by number: the same toys are fitted with it
        too.
    level
        Of the interval.
    critical
        Where q is cut; None: the quantile of χ² (Wilks). From a `Belt` for Neyman's interval.
    seed
        Ensemble and toy have a random stream of their own.
    progress
        Whether to show a bar.

    Raises
    ------
    InputError
        The shape of `truth` is another, or toys cannot be drawn from it.
    """
    from scipy import stats

    cut = float(stats.chi2.ppf(level, 1)) if critical is None else critical
    found: dict[str, list[EnsembleCoverage]] = {"plain": [], "spread": []}
    thrown = _draws(likelihood, np.asarray(truth, float), at)
    thrown.warn_if_small()
    for number in tqdm(range(ensembles), desc="coverage", unit="set", disable=not progress):
        learned = ratios(number)
        sigmas = {"plain": 0.0}
        if spread is not None:
            sigmas["spread"] = spread(number) if callable(spread) else spread
        for variant, sigma in sigmas.items():
            model = replace(likelihood, spread=sigma)
            point = model.start.copy()
            point[0] = at
            rng = np.random.default_rng([seed, number])  # the same toys for both
            fits = fit_toys(model, learned, thrown, point, toys, rng)
            found[variant].append(_covered(fits, number, sigma, at, cut))
    plain, moved = (Covered(name, level, tuple(each)) for name, each in found.items())
    return Coverage(at, plain, moved if spread is not None else None)


def _draws(likelihood: Likelihood, truth: np.ndarray, at: float) -> Draws:
    wanted = len(likelihood.ratios.processes)
    if truth.ndim != 2 or len(truth) != wanted or not (truth.sum(axis=1) > 0).all():
        raise InputError(
            f"truth has shape {truth.shape} and sums {truth.sum(axis=-1)}: give weights "
            f"[{wanted}, N] of the pool's events, above zero in the sum of each process"
        )
    rates = likelihood.strengths.at(at) * np.asarray(likelihood.rates.expected)
    density = (rates / truth.sum(axis=1)) @ truth
    fixed = likelihood.mode == "shape"
    expected = likelihood.observed if fixed else float(rates.sum())
    return Draws.of(density, expected, fixed, throws_spread=False)


def _covered(fits: ToyFits, number: int, sigma: float, at: float, cut: float) -> EnsembleCoverage:
    valid = np.isfinite(fits.ratios)
    away = (fits.values - at)[valid & np.isfinite(fits.errors)]
    errors = fits.errors[valid & np.isfinite(fits.errors)]
    pulls = away / errors
    several = len(pulls) > 1
    return EnsembleCoverage(
        ensemble=number,
        spread=sigma,
        toys=len(fits.ratios),
        covered=int((fits.ratios[valid] <= cut).sum()),
        failed=int((~valid).sum()),
        bias=float(away.mean()) if several else math.nan,
        pull_mean=float(pulls.mean()) if several else math.nan,
        pull_width=float(pulls.std(ddof=1)) if several else math.nan,
        error=float(np.median(errors)) if several else math.nan,
    )
