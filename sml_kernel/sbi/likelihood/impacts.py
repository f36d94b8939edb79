"""How far data pull each nuisance, how much they constrain it, and what it does to the strength."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sml_kernel.sbi.likelihood.estimates import Estimate, estimate
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.problems.origins import InputError


@dataclass(frozen=True)
class Impact:
    """Of one parameter.

    Attributes
    ----------
    parameter
        Its name.
    value, error
        After the fit.
    pull
        (α̂ − a)/1, in the standard deviations that constrain it; nan for a free parameter.
    constraint
        Error after the fit over that before: below 1 the data know more; nan for a free one.
    up, down
        Change of μ̂ with the parameter held at its best value plus, and minus, its error after the
        fit; nan where that fit is not valid.
    """

    parameter: str
    value: float
    error: float
    pull: float
    constraint: float
    up: float
    down: float


@dataclass(frozen=True)
class Impacts:
    """All parameters but the strength, that with the largest impact first."""

    estimate: Estimate
    impacts: tuple[Impact, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A plain row a parameter, for records of kind ``impact``."""
        return [dict(vars(each)) for each in self.impacts]


def rank_impacts(likelihood: Likelihood, best: Estimate | None = None) -> Impacts:
    """Pulls, constraints and impacts; `best` saves the free fit.

    Raises
    ------
    InputError
        The free fit is not valid.
    """
    best = estimate(likelihood) if best is None else best
    if not best.valid:
        raise InputError(f"there is no fit to take pulls from: {best.reason}")
    low_high = dict(zip(likelihood.parameters, likelihood.limits, strict=True))
    found = [
        _impact(likelihood, best, name)
        for name in likelihood.parameters[1:]
        if low_high[name][0] < low_high[name][1]
    ]
    return Impacts(best, tuple(sorted(found, key=_size, reverse=True)))


def _impact(likelihood: Likelihood, best: Estimate, name: str) -> Impact:
    value, error = best.nuisances[name]
    changes = []
    for sign in (1, -1):
        held = estimate(likelihood, {name: value + sign * error}, best.values, errors=False)
        changes.append(held.value - best.value if held.valid else math.nan)
    centre = likelihood.centre(name)
    pull = value - centre if centre is not None else math.nan
    constraint = error if centre is not None else math.nan
    return Impact(name, value, error, pull, constraint, changes[0], changes[1])


def _size(impact: Impact) -> float:
    sizes = [abs(each) for each in (impact.up, impact.down) if math.isfinite(each)]
    return max(sizes, default=math.inf)
