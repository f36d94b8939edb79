"""Fits by iminuit: the best parameters of a likelihood, and the best with the strength held.

Outside its domain, where some density is not above zero, a likelihood has no value. The minimiser
is shown a wall there, only to turn round; what is reported is always a value of the likelihood
itself, or nan with the reason and the number of events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sml_kernel.sbi.likelihood.model import Likelihood

_SCAN = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)  # in starting strengths
_STEP = 1e-4  # of differences of a gradient
_WALL = 1e9  # above any −2 ln L of the neighbourhood; its slope with the events leads back


@dataclass(frozen=True, eq=False)
class Estimate:
    """A fit.

    Attributes
    ----------
    parameters
        [P] names; the first is the strength.
    values, errors
        [P] where −2 ln L is least, and √diag of the covariance; nan where there is none, and 0
        error for what was held. Errors assume events of weight one.
    covariance
        [P, P], the inverse of half the second derivatives.
    minimum
        −2 ln L there.
    valid
        Whether there is a minimum.
    reason
        Why not, or why it has no errors (as at a limit, where −2 ln L need not curve), or that a
        nuisance ended at the limit of what is known of it; else empty.
    not_positive
        Events whose density is zero or below at `values`, or at the start if there is no fit.
    """

    parameters: tuple[str, ...]
    values: np.ndarray
    errors: np.ndarray
    covariance: np.ndarray
    minimum: float
    valid: bool
    reason: str = ""
    not_positive: int = 0

    @property
    def value(self) -> float:
        """The strength."""
        return float(self.values[0])

    @property
    def error(self) -> float:
        """Of the strength."""
        return float(self.errors[0])

    @property
    def nuisances(self) -> dict[str, tuple[float, float]]:
        """Value and error of every other parameter."""
        pairs = zip(self.values[1:].tolist(), self.errors[1:].tolist(), strict=True)
        return dict(zip(self.parameters[1:], pairs, strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """One plain row, for a record of kind ``fit``."""
        return [
            {
                "parameters": list(self.parameters),
                "values": self.values.tolist(),
                "errors": self.errors.tolist(),
                "covariance": self.covariance.tolist(),
                "minimum": self.minimum,
                "valid": self.valid,
                "reason": self.reason,
                "not_positive": self.not_positive,
            }
        ]


def estimate(
    likelihood: Likelihood,
    held: Mapping[str, float] | None = None,
    start: Sequence[float] | np.ndarray | None = None,
    *,
    errors: bool = True,
) -> Estimate:
    """The parameters at which −2 ln L is least.

    Parameters
    ----------
    likelihood
        What is minimised, with its gradient.
    held
        Parameters that stay at a value, by name.
    start
        [P] where to begin; None: `Likelihood.start`. If no valid minimum is found from there,
        others are tried; if the strengths are not linear, all valleys of a scan, of which the
        deepest is taken.
    errors
        Whether to calculate the covariance too.

    Returns
    -------
    Estimate
        Not valid, with nan and a reason, where no start has positive densities or no minimum is
        found.

    Raises
    ------
    KeyError
        A held parameter is unknown.
    """
    first = np.array(likelihood.start if start is None else start, float)
    fixed = _fixed(likelihood, held or {}, first)
    for value, ends, name in zip(first, likelihood.limits, likelihood.parameters, strict=True):
        if not ends[0] <= value <= ends[1]:  # MINUIT would move it to the limit, and not say so
            return _none(likelihood, f"{name} = {value:.6g} is not in its limits {ends}", 0)
    found: list[Estimate] = []
    for begin in _starts(likelihood, first, fixed):
        if not math.isfinite(likelihood.value(begin)):
            continue
        found.append(_minimised(likelihood, begin, fixed, errors))
        if found[-1].valid and likelihood.strengths.linear:
            return found[-1]
    if found:
        return min(
            found, key=lambda each: (not each.valid, np.nan_to_num(each.minimum, nan=np.inf))
        )
    count = likelihood.not_positive(first)
    return _none(likelihood, f"no density above zero for {count} of {likelihood.ratios.events} "
                 f"events at {likelihood.parameters[0]} = {first[0]:.6g}, nor at other starts"
                 if count else "the likelihood is not finite at any start", count)  # fmt: skip


def _fixed(likelihood: Likelihood, held: Mapping[str, float], first: np.ndarray) -> np.ndarray:
    """[P] what stays; `first` is set to the values held."""
    low, high = np.array(likelihood.limits, float).T
    fixed = low == high
    for name, value in held.items():
        if name not in likelihood.parameters:
            raise KeyError(f"no parameter {name!r}: there are {', '.join(likelihood.parameters)}")
        place = likelihood.parameters.index(name)
        first[place], fixed[place] = value, True
    return fixed


def _starts(likelihood: Likelihood, first: np.ndarray, fixed: np.ndarray) -> list[np.ndarray]:
    """Where to begin, one after the other.

    Strengths that are not linear may have several minima, as with interference: then a coarse
    scan comes before, and each of its valleys is a start. Otherwise what follows the first is for
    the case that there is no density above zero at that, or no minimum to be reached from it.
    """
    again = np.where(fixed, first, likelihood.start)
    if fixed[0]:
        tries = [first, again]
    else:
        low, high = likelihood.limits[0]
        strengths = np.unique(np.clip(np.array(_SCAN) * likelihood.strengths.start, low, high))
        tries = [np.concatenate([[mu], again[1:]]) for mu in strengths]
        if not likelihood.strengths.linear:
            tries = _valleys(likelihood, tries)
        tries = [first, *tries]
    return tries


def _valleys(likelihood: Likelihood, tries: list[np.ndarray]) -> list[np.ndarray]:
    values = np.nan_to_num([likelihood.value(each) for each in tries], nan=np.inf)
    walled = np.concatenate([[np.inf], values, [np.inf]])
    lowest = (values <= walled[:-2]) & (values <= walled[2:]) & np.isfinite(values)
    return [each for each, keep in zip(tries, lowest, strict=True) if keep]


def _minimised(
    likelihood: Likelihood, begin: np.ndarray, fixed: np.ndarray, errors: bool
) -> Estimate:
    from iminuit import Minuit

    origin = likelihood.value(begin)

    def value(parameters: np.ndarray) -> float:
        with np.errstate(over="ignore", invalid="ignore"):  # MIGRAD may try what is far away
            found = likelihood.value(parameters) - origin
        if math.isfinite(found):
            return found
        with np.errstate(over="ignore", invalid="ignore"):
            return _WALL * (1 + likelihood.not_positive(parameters))

    def gradient(parameters: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(likelihood.gradient(parameters), posinf=0, neginf=0)

    minuit = Minuit(value, begin, grad=gradient, name=likelihood.parameters)
    minuit.errordef, minuit.print_level = 1.0, 0
    minuit.strategy = 0  # no second derivatives by MINUIT: those here are from the exact gradient
    minuit.tol = 1e-3  # EDM below 2e-6: μ̂ within .0014 of its error
    minuit.errors = np.where(fixed, 0.1, np.maximum(0.1 * np.abs(begin), 0.05))
    minuit.limits = likelihood.limits
    minuit.fixed = fixed
    if not fixed.all():
        minuit.migrad(ncall=200 * len(begin) + 1000)
    return _reported(likelihood, minuit, fixed, errors)


def _reported(likelihood: Likelihood, minuit: Any, fixed: np.ndarray, errors: bool) -> Estimate:
    values = np.array(minuit.values)
    minimum, count = likelihood.value(values), likelihood.not_positive(values)
    if not math.isfinite(minimum):
        return _none(likelihood, f"no density above zero for {count} events at the minimum", count)
    if not fixed.all() and not minuit.valid:
        reason = f"MIGRAD found no minimum: EDM {minuit.fmin.edm:.2g} after {minuit.nfcn} calls"
        return _none(likelihood, reason, count, minimum)
    covariance, reason, valid = np.full((len(values),) * 2, np.nan), "", True
    if errors:
        covariance = covariance_at(likelihood, values, fixed)
        if not (np.diag(covariance)[~fixed] > 0).all():
            reason = "no errors: the second derivatives are not positive there"
            valid = bool(_at_limit(likelihood, values))  # elsewhere −2 ln L is flat, or a saddle
    if known := [
        name for name in _at_limit(likelihood, values) if name in likelihood.ratios.nuisances
    ]:
        ended = f"{', '.join(known)} ended at the limit of what is known: look at its variations"
        reason = f"{reason}; {ended}" if reason else ended
    deviations = np.sqrt(np.where(np.diag(covariance) >= 0, np.diag(covariance), np.nan))
    return Estimate(
        likelihood.parameters, values, deviations, covariance, minimum, valid, reason, count
    )


def _at_limit(likelihood: Likelihood, values: np.ndarray) -> list[str]:
    places = zip(likelihood.parameters, values, likelihood.limits, strict=True)
    return [
        name
        for name, value, ends in places
        if any(math.isclose(value, end, rel_tol=1e-6, abs_tol=1e-6) for end in ends)
    ]


def covariance_at(
    likelihood: Likelihood, values: np.ndarray, fixed: np.ndarray | None = None
) -> np.ndarray:
    """[P, P] twice the inverse of the second derivatives of −2 ln L; zero for what is `fixed`.

    The derivatives are differences of the exact gradient in the parameters themselves, and to one
    side only where the other has no value; so they mean the same at a limit, where those of
    MINUIT's transformed parameters vanish. nan where they are not positive definite.
    """
    free = np.flatnonzero(~fixed) if fixed is not None else np.arange(len(values))
    found = np.zeros((len(values),) * 2)
    curvature = np.array(
        [_gradient_slope(likelihood, values, place)[free] for place in free.tolist()]
    )
    curvature = (curvature + curvature.T) / 2
    if not len(free):
        return found
    at = np.ix_(free, free)
    definite = np.isfinite(curvature).all() and (np.linalg.eigvalsh(curvature) > 0).all()
    found[at] = 2 * np.linalg.inv(curvature) if definite else np.nan
    return found


def _gradient_slope(likelihood: Likelihood, values: np.ndarray, place: int) -> np.ndarray:
    """[P] derivative of the gradient in one parameter."""
    step = _STEP * max(1.0, abs(values[place]))
    ends = []
    for sign in (1, -1):
        moved = values.copy()
        moved[place] += sign * step
        if math.isfinite(likelihood.value(moved)):
            ends.append((moved[place], likelihood.gradient(moved)))
    if len(ends) == 1:
        ends.append((values[place], likelihood.gradient(values)))
    if not ends:
        return np.full(len(values), np.nan)
    return (ends[0][1] - ends[1][1]) / (ends[0][0] - ends[1][0])


def _none(likelihood: Likelihood, reason: str, count: int, minimum: float = math.nan) -> Estimate:
    size = len(likelihood.parameters)
    nothing = np.full(size, np.nan)
    return Estimate(
        likelihood.parameters,
        nothing,
        nothing,
        np.full((size, size), np.nan),
        minimum,
        False,
        reason,
        count,
    )
