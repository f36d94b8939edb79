"""How much of each process there is, as a function of the one parameter that is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sml_kernel.sbi.problems.origins import InputError

_STEP = 1e-5  # central differences: truncation 1e-10, rounding 1e-11 of a coefficient


@dataclass(frozen=True)
class Strengths:
    """The coefficient s_c(μ) of each process: ν_c(μ) = s_c(μ) ν_c.

    Attributes
    ----------
    of
        Pure function: μ of shape [...] → coefficients [C, ...].
    parameter
        What μ is called.
    start, lower, upper
        Where a fit begins, and the limits of μ (−inf and inf: none).
    linear
        Whether `of` is linear in μ; toys of such models are fitted many at once.
    slope
        ds_c/dμ, like `of`; None: by central differences.
    """

    of: Callable[[np.ndarray], np.ndarray]
    parameter: str = "mu"
    start: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf
    linear: bool = False
    slope: Callable[[np.ndarray], np.ndarray] | None = None

    def at(self, mu: float) -> np.ndarray:
        """[C] coefficients."""
        return np.asarray(self.of(np.asarray(mu, float)), float)

    def slope_at(self, mu: float) -> np.ndarray:
        """[C] derivatives of the coefficients."""
        if self.slope is not None:
            return np.asarray(self.slope(np.asarray(mu, float)), float)
        if self.linear:
            return self.at(1.0) - self.at(0.0)
        step = _STEP * max(1.0, abs(mu))
        above, below = min(mu + step, self.upper), max(mu - step, self.lower)
        return (self.at(above) - self.at(below)) / (above - below)


def signal_strength(
    processes: Sequence[str], signal: Sequence[str] = ("signal",), lower: float = -math.inf
) -> Strengths:
    """μ multiplies the signal processes; all others have the coefficient 1.

    Raises
    ------
    InputError
        There is no such process.
    """
    chosen = _chosen(processes, signal)
    return Strengths(lambda mu: _rows(mu, chosen, lambda m: m, np.ones_like), "mu", 1.0, lower,
                     linear=True)  # fmt: skip


def fraction(
    processes: Sequence[str], signal: Sequence[str] = ("signal",), lower: float = -math.inf
) -> Strengths:
    """f for the signal processes and 1 − f for the others: a mixture of fixed total.

    `lower` = 0 keeps f in the physical region; without it f may leave [0, 1] as far as all
    densities stay above zero.
    """
    chosen = _chosen(processes, signal)
    upper = 1.0 if math.isfinite(lower) else math.inf
    return Strengths(lambda f: _rows(f, chosen, lambda m: m, lambda m: 1 - m), "f", 0.5, lower,
                     upper, linear=True)  # fmt: skip


def offshell(
    processes: Sequence[str], signal: str = "S", both: str = "SBI", background: str = "B"
) -> Strengths:
    """(μ − √μ) S + √μ SBI + (1 − √μ) B, μ ≥ 0: signal, background and their interference.

    Processes that are none of the three keep the coefficient 1. As in the off-shell measurement of
    ATLAS (arXiv 2412.01548).
    """
    where = [_chosen(processes, (name,)).index(True) for name in (signal, both, background)]

    def of(mu: np.ndarray) -> np.ndarray:
        rows = np.ones((len(processes), *np.shape(mu)))
        root = np.sqrt(mu)
        rows[where] = np.array([mu - root, root, 1 - root])
        return rows

    def slope(mu: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(processes), *np.shape(mu)))
        half = 0.5 / np.sqrt(np.maximum(mu, 1e-12))  # infinite at the limit μ = 0, which fits touch
        rows[where] = np.array([1 - half, half, -half])
        return rows

    return Strengths(of, "mu", 1.0, 0.0, slope=slope)


def _chosen(processes: Sequence[str], signal: Sequence[str]) -> list[bool]:
    unknown = [name for name in signal if name not in processes]
    if unknown or not signal:
        raise InputError(
            f"signal processes {', '.join(unknown) or 'are not named'}: there are "
            f"{', '.join(processes)}"
        )
    return [name in signal for name in processes]


def _rows(
    mu: np.ndarray,
    chosen: list[bool],
    signal: Callable[[np.ndarray], np.ndarray],
    other: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    mu = np.asarray(mu, float)
    return np.array([signal(mu) if is_signal else other(mu) for is_signal in chosen])
