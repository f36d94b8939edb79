r"""Expected events from weights, with the error of the simulation's finite size.

With weights w of the events of one class,

.. math::
    ν = Σ w \qquad σ_ν = \sqrt{Σ w²} \qquad n_\mathrm{eff} = (Σ w)² / Σ w²

σ_ν is that of a sum of a Poisson number of weights (Bohm and Zech, NIM A 748 (2014) 1), also when
some are negative; n_eff is the number of events of weight one that would give the same ν/σ_ν.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sml_kernel.sbi.problems.problem import Problem


@dataclass(frozen=True)
class Yield:
    """The expected events of one class.

    Attributes
    ----------
    events
        Simulated events.
    expected, error
        ν and its Monte Carlo error σ_ν, in the unit of the weights.
    negative_fraction
        Share of the simulated events whose weight is below zero.
    effective_events
        n_eff. Where a share f of equal weights is negative it is (1 − 2f)² of the events.
    """

    events: int
    expected: float
    error: float
    negative_fraction: float
    effective_events: float

    @classmethod
    def of(cls, weights: np.ndarray) -> Yield:
        """From the weights [N] of the events, N ≥ 1."""
        total, squares = float(weights.sum()), float(weights @ weights)
        effective = total**2 / squares if squares else 0.0
        negative = float((weights < 0).mean())
        return cls(len(weights), total, math.sqrt(squares), negative, effective)


def yield_ratio(problem: Problem, numerator: str, denominator: str) -> tuple[float, float]:
    """κ = ν_numerator/ν_denominator of two classes, and its Monte Carlo error.

    Two classes that are variations of the same simulated events (same `event_ids`) fluctuate
    together: to first order σ_κ² = Σ_i (w_i − κ v_i)² / ν_denominator², over all events that are
    in either class, with w or v zero where an event is in only one, so that only events that
    cross a cut, or change their weight, count.
    """
    above, below = problem.of_class(numerator), problem.of_class(denominator)
    kappa = float(above.weights.sum() / below.weights.sum())
    ids = np.concatenate([above.event_ids, below.event_ids])
    terms = np.concatenate([above.weights, -kappa * below.weights])
    _, places = np.unique(ids, return_inverse=True)
    residuals = np.bincount(places, terms)
    return kappa, float(np.sqrt(residuals @ residuals) / below.weights.sum())
