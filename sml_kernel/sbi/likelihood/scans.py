"""The profile likelihood ratio q(μ) = −2 ln L(μ, α̂̂)/L(μ̂, α̂) of one set of events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sml_kernel.sbi.likelihood.estimates import Estimate, estimate
from sml_kernel.sbi.likelihood.model import Likelihood


@dataclass(frozen=True, eq=False)
class Scan:
    """The profile likelihood ratio at some strengths.

    Attributes
    ----------
    mu, q
        [K] strengths and q there; nan where the fit with μ held is not valid.
    parameters
        [K, P] all of them at their profiled values.
    reasons
        [K] why q is nan; otherwise empty.
    not_positive
        [K] events with a density that is not above zero.
    """

    mu: np.ndarray
    q: np.ndarray
    parameters: np.ndarray
    reasons: tuple[str, ...]
    not_positive: tuple[int, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A plain row a strength, for records of kind ``scan``."""
        rows = zip(self.mu, self.q, self.reasons, self.not_positive, strict=True)
        return [
            {"mu": float(mu), "q": float(q), "reason": reason, "not_positive": count}
            for mu, q, reason, count in rows
        ]


def scan(likelihood: Likelihood, grid: np.ndarray, best: Estimate | None = None) -> Scan:
    """q at the strengths [K] of a grid; `best` saves the free fit."""
    best = estimate(likelihood) if best is None else best
    fits = [held_at(likelihood, best, mu) for mu in grid]
    reasons = [best.reason if not best.valid else fit.reason for fit in fits]
    return Scan(
        np.asarray(grid, float),
        np.array([ratio_of(best, fit) for fit in fits]),
        np.array([fit.values for fit in fits]),
        tuple(reasons),
        tuple(fit.not_positive for fit in fits),
    )


def held_at(likelihood: Likelihood, best: Estimate, mu: float) -> Estimate:
    """The fit with the strength held at μ, from where the free one ended."""
    start = best.values if best.valid else None
    return estimate(likelihood, {likelihood.parameters[0]: float(mu)}, start, errors=False)


def ratio_of(best: Estimate, held: Estimate) -> float:
    """q of two fits; nan where one is not valid."""
    if not (best.valid and held.valid):
        return math.nan
    return max(held.minimum - best.minimum, 0.0)
