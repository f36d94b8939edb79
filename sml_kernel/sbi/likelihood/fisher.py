r"""Fisher information of families whose densities are known: what any inference can reach.

With ν(θ) events expected and density p(x|θ), the information about θ is

.. math::
    I_\mathrm{shape} = ν\, E\left[(∂_θ \ln p)²\right], \qquad
    I_\mathrm{yield} = (∂_θ ν)² / ν, \qquad I_\mathrm{both} = I_\mathrm{shape} + I_\mathrm{yield}

and σ(θ̂) = 1/√I (Rao 1945, Cramér 1946). Information adds, as the extended likelihood does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sml_kernel.sbi.problems.exact import Exact
from sml_kernel.sbi.problems.origins import InputError

_STEP = 1e-4  # of central differences: relative error 1e-8
_BEYOND = 6.0  # widths of a sample beyond its ends, where an integral begins and ends
_POINTS = 100_001


@dataclass(frozen=True)
class Information:
    """Made by `fisher_information`.

    Attributes
    ----------
    at
        θ.
    shape, rate
        Of the distribution of the events, and of their number.
    error
        Statistical error of `shape`; 0 where it was integrated.
    """

    at: float
    shape: float
    rate: float
    error: float = 0.0

    def sigma(self, mode: str = "both") -> float:
        """The least σ(θ̂) in mode ``shape``, ``yield`` or ``both``; inf without information."""
        parts = {"shape": self.shape, "yield": self.rate, "both": self.shape + self.rate}
        if mode not in parts:
            raise InputError(f"there is no mode {mode!r}; there are {', '.join(parts)}")
        return 1 / math.sqrt(parts[mode]) if parts[mode] > 0 else math.inf

    def rows(self) -> list[dict[str, Any]]:
        """A plain row a mode, for records of kind ``information``."""
        return [
            {"at": self.at, "mode": mode, "sigma": self.sigma(mode), "error": self.error}
            for mode in ("shape", "yield", "both")
        ]


def fisher_information(
    exact: Exact, at: float, events: float | None = None, *, sample: int = 200_000, seed: int = 0
) -> Information:
    """Information about a family's parameter.

    Parameters
    ----------
    exact
        The family.
    at
        θ; the family must have values on both sides of it.
    events
        ν(θ); None: the family's own. Given, the yields are scaled to it.
    sample
        Events drawn. One feature is integrated over, in a range that follows from them; for more
        features they are what the mean is taken over, weights included.
    seed
        Of the sample.
    """
    expected = exact.expected(at)
    scale = 1.0 if events is None else events / expected
    step = _STEP * max(1.0, abs(at))
    change = (exact.expected(at + step) - exact.expected(at - step)) / (2 * step)
    x, weights = exact.sample(at, sample, np.random.default_rng(seed))
    if x.shape[1] == 1:
        mean, error = _integral(exact, at, step, x[:, 0]), 0.0
    else:
        terms = weights * _score(exact, x, at, step) ** 2
        mean, error = float(terms.mean()), float(terms.std() / math.sqrt(len(terms)))
    nu = scale * expected
    return Information(at, nu * mean, scale * change**2 / expected, nu * error)


def _score(exact: Exact, x: np.ndarray, at: float, step: float) -> np.ndarray:
    above, below = (exact.log_density(x, at + sign * step) for sign in (1, -1))
    return (above - below) / (2 * step)


def _integral(exact: Exact, at: float, step: float, sample: np.ndarray) -> float:
    """∫ p (∂ ln p)² dx by the trapezium rule, which is exact to rounding for smooth tails."""
    width = sample.std()
    low, high = sample.min() - _BEYOND * width, sample.max() + _BEYOND * width
    grid = np.linspace(low, high, _POINTS)
    density = np.exp(exact.log_density(grid[:, None], at))
    score = _score(exact, grid[:, None], at, step)
    return float(np.trapezoid(np.where(density > 0, density * score**2, 0.0), grid))
