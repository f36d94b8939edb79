r"""Confidence intervals of the strength: from Wilks' theorem, and from toys, side by side.

With q(μ) = −2 ln L(μ, α̂̂)/L(μ̂, α̂), the profile likelihood ratio,

- *Wilks*: μ is in the interval where q(μ) ≤ Δ, the quantile of χ² with one degree of freedom
  (Wilks 1938; 1 for 68.27 %). Right for many events and μ away from limits.
- *Neyman*: μ is in the interval where q(μ) ≤ c(μ), the quantile of q in toys thrown at
  (μ, α̂̂(μ)). Ordering by q is that of Feldman and Cousins (PRD 57 (1998) 3873); nuisances are
  thrown at their profiled values, as in arXiv 1007.1727 and in ATLAS' NSBI (2412.01600). c has
  the binomial uncertainty of a quantile: the k-th of n toys, with k off by √(n p (1 − p)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sml_kernel.sbi.likelihood.estimates import Estimate, estimate
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.neyman import Belt, neyman_belt
from sml_kernel.sbi.likelihood.ratios import Ratios
from sml_kernel.sbi.likelihood.scans import Scan, held_at, ratio_of, scan
from sml_kernel.sbi.problems.origins import InputError

METHODS = ("wilks", "neyman")
ONE_SIGMA = math.erf(1 / math.sqrt(2))  # .6827
_FARTHEST = 60  # doublings of a step in search of a crossing


@dataclass(frozen=True)
class Interval:
    """One interval.

    Attributes
    ----------
    method
        ``wilks`` or ``neyman``.
    low, high
        Its ends; nan with a reason where there is none.
    low_errors, high_errors
        (lowest, highest) place of each end within the binomial uncertainty of the belt; the ends
        themselves for Wilks.
    low_reason, high_reason
        Why an end is nan, or that it is the limit of μ; otherwise empty.
    """

    method: str
    low: float
    high: float
    low_errors: tuple[float, float]
    high_errors: tuple[float, float]
    low_reason: str = ""
    high_reason: str = ""


@dataclass(frozen=True, eq=False)
class Intervals:
    """An estimate with its intervals; made by `confidence_intervals`.

    Attributes
    ----------
    level
        Of confidence.
    estimate
        The fit with all parameters free.
    wilks, neyman
        The intervals; `neyman` is None where it was not asked for.
    scan
        q of the observed events, at the strengths of the belt where there is one.
    belt
        What the Neyman interval was made from.
    """

    level: float
    estimate: Estimate
    wilks: Interval
    scan: Scan
    neyman: Interval | None = None
    belt: Belt | None = None

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Plain rows by the kind of record they belong to: ``fit``, ``scan``, ``interval`` and
        ``belt``."""
        found = [each for each in (self.wilks, self.neyman) if each is not None]
        intervals = [
            {
                "level": self.level,
                "value": self.estimate.value,
                "method": each.method,
                "low": each.low,
                "high": each.high,
                "low_errors": list(each.low_errors),
                "high_errors": list(each.high_errors),
                "low_reason": each.low_reason,
                "high_reason": each.high_reason,
            }
            for each in found
        ]
        return {
            "fit": self.estimate.rows(),
            "scan": self.scan.rows(),
            "interval": intervals,
            "belt": [] if self.belt is None else self.belt.rows(),
        }


def confidence_intervals(
    likelihood: Likelihood,
    pool: Ratios | None = None,
    *,
    method: str = "wilks",
    level: float = ONE_SIGMA,
    grid: Sequence[float] | np.ndarray | None = None,
    toys: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Intervals:
    """Fit, scan, and give intervals at a level of confidence.

    Parameters
    ----------
    likelihood
        Of the observed events.
    pool
        Reference events that toys are drawn from, with ratios by the same networks; needed for
        ``neyman``. How many: see `sml_kernel.sbi.likelihood.toys`.
    method
        ``wilks``, or ``neyman`` for both.
    level
        .6827 is one standard deviation.
    grid
        Strengths at which toys are thrown, and q scanned; None: 13 to either side of the Wilks
        interval, within the limits of μ.
    toys
        At each strength.
    seed
        Of the toys; each strength has a stream of its own.
    progress
        Whether to show a bar.

    Raises
    ------
    InputError
        The method is unknown, the level is not in (0, 1), or a pool is wanted and missing.
    """
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    if not 0 < level < 1:
        raise InputError(f"a level of {level}: give a probability, such as .6827")
    if method == "neyman" and pool is None:
        raise InputError("toys are drawn from a pool: give ratios of reference events as pool=")
    best = estimate(likelihood)
    wilks = _wilks(likelihood, best, level)
    strengths = np.asarray(_grid(likelihood, best, wilks, level) if grid is None else grid, float)
    scanned = scan(likelihood, strengths, best)
    if method == "wilks" or pool is None:
        return Intervals(level, best, wilks, scanned)
    if not best.valid:
        none = _nothing("neyman", best.reason)
        return Intervals(level, best, wilks, scanned, none)
    belt = neyman_belt(likelihood, pool, scanned.parameters, level, toys, seed, progress=progress)
    return Intervals(level, best, wilks, scanned, _neyman(likelihood, best, scanned, belt), belt)


def _grid(likelihood: Likelihood, best: Estimate, wilks: Interval, level: float) -> np.ndarray:
    """13 strengths, from half a σ and half the interval beyond its ends."""
    if not best.valid:
        return np.empty(0)
    low = wilks.low if math.isfinite(wilks.low) else best.value - 2 * _scale(best)
    high = wilks.high if math.isfinite(wilks.high) else best.value + 2 * _scale(best)
    beyond = 0.25 * (high - low) + 0.5 * _scale(best)
    low, high = np.clip((low - beyond, high + beyond), *likelihood.limits[0])
    return np.linspace(low, high, 13)


def _scale(best: Estimate) -> float:
    """A length to search by: the error, or where there is none the strength itself."""
    return best.error if math.isfinite(best.error) else max(abs(best.value), 1.0)


def _nothing(method: str, reason: str) -> Interval:
    nan = math.nan
    return Interval(method, nan, nan, (nan, nan), (nan, nan), reason, reason)


def _wilks(likelihood: Likelihood, best: Estimate, level: float) -> Interval:
    from scipy import stats

    if not best.valid:
        return _nothing("wilks", best.reason)
    threshold = float(stats.chi2.ppf(level, 1))
    low, low_reason = _crossing(likelihood, best, threshold, -1)
    high, high_reason = _crossing(likelihood, best, threshold, 1)
    return Interval("wilks", low, high, (low, low), (high, high), low_reason, high_reason)


def _crossing(
    likelihood: Likelihood, best: Estimate, threshold: float, side: int
) -> tuple[float, str]:
    """Where q passes the threshold to one side of μ̂, and why not if it does not."""
    limit = likelihood.limits[0][side > 0]
    inside, step = best.value, math.sqrt(threshold) * _scale(best)
    for _ in range(_FARTHEST):
        outside = inside + side * step
        outside = min(outside, limit) if side > 0 else max(outside, limit)
        q = ratio_of(best, held_at(likelihood, best, outside))
        if math.isnan(q) and step > 1e-6 * _scale(best):
            step /= 2  # beyond the domain of the likelihood, or a fit that failed: go less far
            continue
        if math.isnan(q):
            return math.nan, f"no density above zero, or no fit, at {outside:.6g}"
        if q >= threshold:
            return _between(likelihood, best, lambda _: threshold, inside, outside), ""
        if outside == limit:
            return limit, "limit of the strength"
        inside = outside
    return math.nan, f"q stays below {threshold:.3g} as far as {inside:.6g}"


def _between(
    likelihood: Likelihood,
    best: Estimate,
    threshold: Callable[[float], float],
    inside: float,
    outside: float,
) -> float:
    from scipy import optimize

    def beyond(mu: float) -> float:
        return ratio_of(best, held_at(likelihood, best, mu)) - threshold(mu)

    return float(optimize.brentq(beyond, inside, outside, xtol=1e-4 * _scale(best), rtol=1e-8))


def _neyman(likelihood: Likelihood, best: Estimate, scanned: Scan, belt: Belt) -> Interval:
    ends: list[tuple[float, tuple[float, float], str]] = []
    for side in (-1, 1):
        value, reason = _belt_end(likelihood, best, scanned, belt.critical, side)
        about = [
            _belt_end(likelihood, best, scanned, critical, side)[0]
            for critical in (belt.critical_low, belt.critical_high)
        ]
        ends.append((value, (min(about), max(about)), reason))
    (low, low_errors, low_reason), (high, high_errors, high_reason) = ends
    return Interval("neyman", low, high, low_errors, high_errors, low_reason, high_reason)


def _belt_end(
    likelihood: Likelihood, best: Estimate, scanned: Scan, critical: np.ndarray, side: int
) -> tuple[float, str]:
    """The outermost strength to one side at which q(μ) = c(μ), c between the grid's by a line."""
    order = np.argsort(scanned.mu)
    mu, accepted = scanned.mu[order], (scanned.q <= critical)[order]
    critical = critical[order]
    if not np.isfinite(critical + scanned.q[order]).all():
        return math.nan, "q or its quantile is nan in the grid: see the scan and the belt"
    inside = np.flatnonzero(accepted)
    if not len(inside):
        return math.nan, "no strength of the grid is accepted: take a finer one"
    edge = int(inside[-1] if side > 0 else inside[0])
    if not 0 <= edge + side < len(mu):
        limit = likelihood.limits[0][side > 0]
        if mu[edge] == limit:
            return limit, "limit of the strength"
        return math.nan, f"the grid ends at {mu[edge]:.6g}, which is accepted: take a wider one"
    return _between(
        likelihood, best, lambda m: float(np.interp(m, mu, critical)), mu[edge], mu[edge + side]
    ), ""
