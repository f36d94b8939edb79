"""The belt of a Neyman construction: quantiles of the profile likelihood ratio in toys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.ratios import Ratios
from sml_kernel.sbi.likelihood.toys import Draws, draws, fit_toys


@dataclass(frozen=True, eq=False)
class Belt:
    """Quantiles c(μ) of q in toys.

    Attributes
    ----------
    mu
        [K] strengths at which toys were thrown.
    critical, critical_low, critical_high
        [K] the quantile, and it within its binomial uncertainty of one standard deviation.
    toys, failed
        Thrown at each strength, and [K] how many of them have no valid fit. Those are counted as
        beyond any quantile: nothing is left out.
    effective_pool, expected
        [K] what the pool is worth there in events, and mean events of a toy.
    """

    mu: np.ndarray
    critical: np.ndarray
    critical_low: np.ndarray
    critical_high: np.ndarray
    toys: int
    failed: np.ndarray
    effective_pool: np.ndarray
    expected: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """A plain row a strength, for records of kind ``belt``."""
        names = ("mu", "critical", "critical_low", "critical_high", "effective_pool", "expected")
        columns = zip(*(getattr(self, name).tolist() for name in names), strict=True)
        return [
            {**dict(zip(names, row, strict=True)), "toys": self.toys, "failed": int(failed)}
            for row, failed in zip(columns, self.failed, strict=True)
        ]


def neyman_belt(
    likelihood: Likelihood,
    pool: Ratios,
    points: np.ndarray,
    level: float,
    toys: int,
    seed: int,
    *,
    progress: bool = True,
) -> Belt:
    """Throw toys at points and take the quantile of q at a level.

    Parameters
    ----------
    likelihood
        What is fitted to each toy.
    pool
        Reference events, with ratios by the same networks.
    points
        [K, P] parameters; a row of nan, where the observed events have no fit, gives nan.
    level, toys, seed, progress
        As of `confidence_intervals`.
    """
    found, worth = [], []
    smallest: Draws | None = None
    for k, point in enumerate(tqdm(points, desc="Neyman belt", unit="point", disable=not progress)):
        if not np.isfinite(point).all():
            found.append((math.nan, math.nan, math.nan, 0))
            worth.append((math.nan, math.nan))
            continue
        thrown = draws(likelihood, pool, point)
        if smallest is None or thrown.adequacy < smallest.adequacy:
            smallest = thrown
        rng = np.random.default_rng([seed, k])
        ratios = fit_toys(likelihood, pool, thrown, point, toys, rng, errors=False).ratios
        found.append((*quantile(ratios, level), int(np.isnan(ratios).sum())))
        worth.append((thrown.effective, thrown.expected))
    if smallest is not None:
        smallest.warn_if_small()
    critical, low, high, failed = np.array(found, float).reshape(-1, 4).T
    effective, expected = np.array(worth, float).reshape(-1, 2).T
    mu = points.reshape(len(points), -1)[:, 0]
    return Belt(mu, critical, low, high, toys, failed.astype(int), effective, expected)


def quantile(ratios: np.ndarray, level: float) -> tuple[float, float, float]:
    """The quantile of [T] values, and those a binomial standard deviation below and above.

    It is the k-th smallest value with k = ⌈level (T + 1)⌉, so that one more value is at or below
    it with a probability of at least the level. nan counts as larger than any value; a quantile
    that falls among these, or beyond the last, is nan.
    """
    ordered = np.sort(ratios)
    middle, off = level * (len(ratios) + 1), math.sqrt(len(ratios) * level * (1 - level))
    ranks = [math.ceil(each) for each in (middle, middle - off, middle + off)]
    values = [float(ordered[k - 1]) if 0 < k <= len(ordered) else math.nan for k in ranks]
    return values[0], values[1], values[2]
