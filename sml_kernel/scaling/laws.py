r"""Laws of scaling: pure functions of numbers of ranks and throughputs.

With X(n) the throughput of n ranks, in work (edges, graphs) per second,

.. math::
    X(n) = \frac{λ n}{1 + σ (n − 1)} \qquad\qquad
    X(n) = \frac{λ n}{1 + σ (n − 1) + κ n (n − 1)}

are Amdahl's law (AFIPS 1967), where σ is the serial share, and the universal scalability law
(Gunther 2007), where σ is contention for what is shared and κ the cost of keeping all ranks
consistent, which grows with every pair of them and makes throughput fall beyond its peak.

A fit minimises squared residuals of log X: repeats are taken to scatter by one relative spread,
which is estimated from the residuals. Parameters are not held at zero: a σ below zero by more
than its error is a speed-up beyond linear, and a bound would spoil the confidence bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


class LawError(ValueError):
    """What a law cannot be asked: too few points, or numbers of ranks beyond its support."""


@dataclass(frozen=True)
class Law:
    """A law: what divides λ n, the names of its parameters, and how many points it needs."""

    name: str
    parameters: tuple[str, ...]
    terms: Callable[[np.ndarray], np.ndarray]
    least_points: int


def _amdahl_terms(ranks: np.ndarray) -> np.ndarray:
    return (ranks - 1)[:, None]


def _usl_terms(ranks: np.ndarray) -> np.ndarray:
    return np.stack([ranks - 1, ranks * (ranks - 1)], axis=1)


LAWS = {
    "amdahl": Law("amdahl", ("serial_share",), _amdahl_terms, 3),
    "usl": Law("usl", ("contention", "coherency"), _usl_terms, 5),
}


def amdahl(ranks: Sequence[float], rate: float, serial_share: float) -> np.ndarray:
    """Throughput of `ranks` by Amdahl's law; `rate` is that of one rank."""
    return _throughput(LAWS["amdahl"], np.asarray(ranks, float), rate, [serial_share])


def usl(ranks: Sequence[float], rate: float, contention: float, coherency: float) -> np.ndarray:
    """Throughput of `ranks` by the universal scalability law; `rate` is that of one rank."""
    return _throughput(LAWS["usl"], np.asarray(ranks, float), rate, [contention, coherency])


@dataclass(frozen=True)
class Fit:
    """A fitted law, from `fit`.

    Attributes
    ----------
    law
        A name in `LAWS`.
    values, errors
        ``rate`` (throughput of one rank) and the law's parameters, with standard errors.
    covariance
        Of log rate and the law's parameters.
    spread
        Relative standard deviation of one measurement about the law.
    freedom
        Degrees of freedom that `spread` was estimated with.
    support
        Fewest and most ranks that were measured.
    misfit_p
        Probability of a misfit this large if the law held, judged by the spread of repeats at the
        same number of ranks; nan without repeats. Near 0 the law is wrong and its band too narrow.
    """

    law: str
    values: dict[str, float]
    errors: dict[str, float]
    covariance: np.ndarray
    spread: float
    freedom: int
    support: tuple[float, float]
    misfit_p: float

    def at(
        self, ranks: Sequence[float], *, confidence: float = 0.68, extrapolate: bool = False
    ) -> pd.DataFrame:
        """Throughput and its confidence band: of the law, not of one more measurement.

        Parameters
        ----------
        ranks
            Where to look.
        confidence
            Probability that the band covers the true throughput at any one number of ranks.
        extrapolate
            Allow numbers of ranks outside `support`; their rows say ``extrapolated``.

        Raises
        ------
        LawError
            Beyond the support without `extrapolate`.
        """
        from scipy.stats import t

        where = np.asarray(ranks, float)
        beyond = (where < self.support[0]) | (where > self.support[1])
        if beyond.any() and not extrapolate:
            raise LawError(
                f"{_listed(where[beyond])} ranks lie outside the {_listed(self.support, ' to ')} "
                "that were measured: measure them, or say extrapolate=True to be told a guess"
            )
        law = LAWS[self.law]
        parameters = [self.values[name] for name in law.parameters]
        middle = _throughput(law, where, self.values["rate"], parameters)
        slope = _slopes(law, where, parameters)
        error = np.sqrt(np.einsum("ni,ij,nj->n", slope, self.covariance, slope))
        reach = t.ppf(0.5 + confidence / 2, self.freedom) * error
        return pd.DataFrame(
            {
                "ranks": where,
                "throughput": middle,
                "lower": middle * np.exp(-reach),
                "upper": middle * np.exp(reach),
                "extrapolated": beyond,
            }
        )

    def peak(self) -> float:
        """Ranks of highest throughput; inf if there is none. May lie beyond the `support`."""
        coherency = self.values.get("coherency", 0.0)
        contention = self.values.get("contention", 0.0)
        return math.sqrt((1 - contention) / coherency) if coherency > 0 else math.inf

    def __str__(self) -> str:
        shown = (
            f"{name} {value:.4g} ± {self.errors[name]:.2g}" for name, value in self.values.items()
        )
        return f"{self.law}, {_listed(self.support, ' to ')} ranks: {', '.join(shown)}"


def fit(law: str, ranks: Sequence[float], throughput: Sequence[float]) -> Fit:
    """Fit a law to measurements, a value for each repeat.

    Parameters
    ----------
    law
        ``"amdahl"`` or ``"usl"``.
    ranks, throughput
        [M] of each measurement; throughput in work per second.

    Raises
    ------
    LawError
        An unknown law, too few different numbers of ranks, throughput that is not positive.
    """
    from scipy.optimize import least_squares

    if law not in LAWS:
        raise LawError(f"unknown law {law!r}; known: {', '.join(LAWS)}")
    n, x = np.asarray(ranks, float), np.asarray(throughput, float)
    _check(LAWS[law], n, x)
    found = least_squares(
        lambda point: _log_throughput(LAWS[law], n, point) - np.log(x),
        _start(LAWS[law], n, x),
        jac=lambda point: _slopes(LAWS[law], n, point[1:]),
    )
    freedom = len(x) - len(found.x)
    variance = float(found.fun @ found.fun) / freedom
    covariance = variance * np.linalg.inv(found.jac.T @ found.jac)
    rate, errors = math.exp(found.x[0]), np.sqrt(np.diag(covariance))
    names = LAWS[law].parameters
    return Fit(
        law=law,
        values={"rate": rate, **dict(zip(names, map(float, found.x[1:]), strict=True))},
        errors={"rate": rate * errors[0], **dict(zip(names, map(float, errors[1:]), strict=True))},
        covariance=covariance,
        spread=math.sqrt(variance),
        freedom=freedom,
        support=(float(n.min()), float(n.max())),
        misfit_p=_misfit(n, np.log(x), found.fun, len(found.x)),
    )


def efficiency(
    ranks: Sequence[float], throughput: Sequence[float], error: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Throughput a rank over that of the fewest ranks, with its standard error.

    Throughput is work over time: with a fixed global batch this is the strong efficiency
    T(1) / (n T(n)), with a fixed batch a rank the weak one T(1) / T(n). The reference is 1 without
    error; its error enters all others, which are therefore correlated.

    Parameters
    ----------
    ranks, throughput, error
        [M] each number of ranks once; `error` is the standard error of `throughput`, nan where
        there is none to be had.
    """
    n, x, dx = (np.asarray(values, float) for values in (ranks, throughput, error))
    first = int(np.argmin(n))
    value = (x / n) / (x[first] / n[first])
    relative = np.hypot(dx / x, dx[first] / x[first])
    return value, np.where(np.arange(len(n)) == first, 0.0, value * relative)


def _throughput(
    law: Law, ranks: np.ndarray, rate: float, parameters: Sequence[float]
) -> np.ndarray:
    return rate * ranks / (1 + law.terms(ranks) @ np.asarray(parameters, float))


def _log_throughput(law: Law, ranks: np.ndarray, point: np.ndarray) -> np.ndarray:
    # A step of the minimiser may leave the region where the law has a meaning: a large residual
    # there leads it back.
    below = np.maximum(1 + law.terms(ranks) @ point[1:], 1e-9)
    return point[0] + np.log(ranks / below)


def _slopes(law: Law, ranks: np.ndarray, parameters: Sequence[float]) -> np.ndarray:
    """[M, P] derivatives of log throughput by log rate and by each parameter."""
    terms = law.terms(ranks)
    below = np.maximum(1 + terms @ np.asarray(parameters, float), 1e-9)
    return np.concatenate([np.ones((len(ranks), 1)), -terms / below[:, None]], axis=1)


def _start(law: Law, n: np.ndarray, x: np.ndarray) -> np.ndarray:
    """n/X is linear in 1/λ, σ/λ and κ/λ: the linear solution, if it has a meaning."""
    columns = np.concatenate([np.ones((len(n), 1)), law.terms(n)], axis=1)
    solved = np.linalg.lstsq(columns * (x / n)[:, None], np.ones(len(n)), rcond=None)[0]
    if solved[0] <= 0 or (columns @ solved <= 0).any():
        return np.array([np.log(np.mean(x / n)), *[0.0] * len(law.parameters)])
    return np.array([-np.log(solved[0]), *(solved[1:] / solved[0])])


def _check(law: Law, n: np.ndarray, x: np.ndarray) -> None:
    if n.shape != x.shape or not (np.isfinite(x).all() and (x > 0).all() and (n > 0).all()):
        raise LawError("ranks and throughput are as many, and both are finite and above zero")
    different = len(np.unique(n))
    if different < law.least_points:
        raise LawError(
            f"{law.name} needs at least {law.least_points} different numbers of ranks, "
            f"and there are {different}: measure more, or fit a law with fewer parameters"
        )


def _misfit(n: np.ndarray, log_x: np.ndarray, residuals: np.ndarray, parameters: int) -> float:
    """F test of what the law misses against the scatter of repeats."""
    from scipy.stats import f

    groups = [log_x[n == value] for value in np.unique(n)]
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    missed, repeats = len(groups) - parameters, len(n) - len(groups)
    if missed < 1 or repeats < 1 or within == 0:
        return math.nan
    lack = float(residuals @ residuals) - within
    return float(f.sf(max(lack, 0.0) / missed / (within / repeats), missed, repeats))


def _listed(values: Sequence[float] | np.ndarray, between: str = ", ") -> str:
    return between.join(f"{value:g}" for value in values)
