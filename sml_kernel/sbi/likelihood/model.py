r"""The likelihood of a mixture of processes whose densities are ratios to a common reference.

.. math::
    \frac{p(x|μ,α)}{p_\mathrm{ref}(x)} = \frac{1}{ν} \sum_c ν_c(μ, α)\, r_c(x)\, g_c(x, α), \qquad
    ν_c = s_c(μ)\, ν_c(0) \prod_a h_{ca}(α_a), \quad g_c = \prod_a g_{ca}(x, α_a)

with the strengths s_c, and each h and g a HistFactory interpolation between α = ±1
(`sml_kernel.sbi.likelihood.interpolation`). With ν = Σ ν_c and N = Σ w_i events observed,

.. math::
    −2 \ln L = −2 (N \ln ν − ν) − 2 \sum_i w_i \ln \frac{p(x_i|μ,α)}{p_\mathrm{ref}(x_i)}
               + \sum_a (α_a − a_a)²

The first term is the mode ``yield``, the second ``shape``; ``both`` has both, and all have the
constraints. a_a is what was measured of α_a elsewhere: 0, but in toys, which throw it. This is the
likelihood of ATLAS' NSBI (arXiv 2412.01600). Factors g are divided by their means E_c[g(x, α)] if
these are given (`Ratios.norms`, see `sml_kernel.sbi.likelihood.norms`). The α of an interpolation
stay within ±5: beyond the grid of these means nothing is known.

*Spread of the ensemble.* Networks that learned from a finite sample give a density whose best μ is
off by an unknown amount, which retraining shows to have some σ. In the manner of the same paper, a
nuisance β ~ N(0, 1) moves the strength at which the densities are taken, to μ + σβ, and leaves the
yield ν(μ) where it is: rates do not come from networks. In mode ``shape`` alone it adds σ in
quadrature. It is as good as σ is; whether it covers is to be measured with retrained ensembles
(`measure_coverage`), since a bootstrap can miss what it stands for (arXiv 2505.19156).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sml_kernel.sbi.likelihood.mixture import Mixture
from sml_kernel.sbi.likelihood.norms import ALPHAS
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.likelihood.strengths import Strengths
from sml_kernel.sbi.likelihood.workspace import ControlRegions
from sml_kernel.sbi.problems.origins import InputError

MODES = ("shape", "yield", "both")
SPREAD = "spread"  # name of β among the parameters


@dataclass(frozen=True, eq=False)
class Likelihood:
    """−2 ln L of observed events, as a function of a vector of named parameters.

    Parameters are, in this order: the strength; `normalisations`; `ratios.nuisances`; one ``mc_c``
    for each process with a Monte Carlo error of its yield, which multiplies it by
    exp(γ σ_c/ν_c); ``spread``; what is in the control regions alone.

    Attributes
    ----------
    ratios
        Of the observed events, or of a toy.
    rates
        Of the same processes and nuisances.
    strengths
        `signal_strength`, `fraction`, `offshell`, or one's own.
    mode
        ``shape``, ``yield`` or ``both``.
    normalisations
        Name → processes that it multiplies: factors without a constraint, around 1.
    spread
        σ of the estimated μ over retrained networks; 0: none.
    control
        Binned regions that share parameters: see `sml_kernel.sbi.likelihood.workspace`.
    auxiliary
        Measured values a of constrained parameters by name; 0 where not named.

    Raises
    ------
    InputError
        The mode is unknown, names of processes or parameters are unknown or clash, or shapes do not
        agree.
    """

    ratios: Ratios
    rates: Rates
    strengths: Strengths
    mode: str = "both"
    normalisations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spread: float = 0.0
    control: ControlRegions | None = None
    auxiliary: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"there is no mode {self.mode!r}; there are {', '.join(MODES)}")
        known = self.ratios.processes
        for name, members in self.normalisations.items():
            if unknown := [each for each in members if each not in known]:
                raise InputError(
                    f"{name} scales {', '.join(unknown)}: known are {', '.join(known)}"
                )
        shape = (len(known), len(self.ratios.nuisances), 2)
        for what, array, wanted in (
            ("rates", self.rates.expected, shape[:1]),
            ("strengths", self.strengths.at(self.strengths.start), shape[:1]),
            ("rates' variation", self.rates.variation, shape),
        ):
            if array is not None and np.shape(array) != wanted:
                raise InputError(
                    f"{what} have shape {np.shape(array)} for {len(known)} processes and "
                    f"{len(self.ratios.nuisances)} nuisances: {wanted} is wanted"
                )
        if not (np.isfinite(self.spread) and self.spread >= 0):
            raise InputError(f"a spread of {self.spread}: give σ from zero up")
        own = self._own
        if twice := sorted({name for name in own if own.count(name) > 1}):
            raise InputError(f"parameters {', '.join(twice)} come twice among {', '.join(own)}")
        if self.control is not None:
            free = (self.strengths.parameter, *self.normalisations)
            self.control.check(free, own[len(free) :])
        if unknown := [name for name in self.auxiliary if name not in self.constrained]:
            raise InputError(f"nothing constrains {', '.join(unknown)}: {self.constrained} are")

    # ------------------------------------------------------------------------------- parameters

    @cached_property
    def _own(self) -> tuple[str, ...]:
        errors = self.rates.errors
        uncertain = () if errors is None else tuple(np.flatnonzero(np.asarray(errors) > 0))
        return (
            self.strengths.parameter,
            *self.normalisations,
            *self.ratios.nuisances,
            *(f"mc_{self.ratios.processes[c]}" for c in uncertain),
            *((SPREAD,) if self.spread and self.mode != "yield" else ()),
        )

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """[P] names; the first is the strength, which is measured."""
        others = () if self.control is None else self.control.parameters
        return (*self._own, *(name for name in others if name not in self._own))

    @cached_property
    def constrained(self) -> tuple[str, ...]:
        """Parameters that this likelihood constrains; shared ones are constrained in `control`."""
        shared = () if self.control is None else self.control.parameters
        free = 1 + len(self.normalisations)
        return tuple(name for name in self._own[free:] if name not in shared)

    def centre(self, name: str) -> float | None:
        """What was measured elsewhere of a parameter constrained by a unit normal, else None."""
        if name in self.constrained:
            return float(self.auxiliary.get(name, 0.0))
        return None if self.control is None else self.control.centres.get(name)

    @cached_property
    def start(self) -> np.ndarray:
        """[P] nominal values: the strength's start, 1 for factors, 0 for constrained ones."""
        free = 1 + len(self.normalisations)
        first = [self.strengths.start, *[1.0] * (free - 1), *[0.0] * (len(self._own) - free)]
        control = {} if self.control is None else self.control.initial
        return np.array([*first, *(control[name] for name in self.parameters[len(first) :])])

    @cached_property
    def limits(self) -> list[tuple[float, float]]:
        """[P] lower and upper limit of each parameter."""
        limits = dict.fromkeys(self._own, (-np.inf, np.inf))
        limits |= dict.fromkeys(self.ratios.nuisances, (float(ALPHAS[0]), float(ALPHAS[-1])))
        limits |= dict.fromkeys(self.normalisations, (0.0, np.inf))
        limits[self._own[0]] = (self.strengths.lower, self.strengths.upper)
        if self.control is not None:
            limits = {**self.control.limits, **limits}
        return [limits[name] for name in self.parameters]

    @cached_property
    def observed(self) -> float:
        """N = Σ w."""
        return float(self.ratios.event_weights.sum())

    # ----------------------------------------------------------------------------------- values

    def value(self, parameters: np.ndarray) -> float:
        """−2 ln L at [P] parameters; nan where a density or a yield is not above zero."""
        base, _ = self._mixture.yields(parameters)
        total = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.mode != "yield":
                events = self.density(parameters)
                expected = self._strength(parameters, moved=True) @ base
                positive = (events > 0).all() and expected > 0
                logs = self.ratios.event_weights @ np.log(events) if positive else np.nan
                total -= 2 * (logs - self.observed * np.log(expected))
            if self.mode != "shape":
                expected = self._strength(parameters) @ base
                logs = np.log(expected) if expected > 0 else np.nan
                total -= 2 * (self.observed * logs - expected)
        total += sum((parameters[at] - measured) ** 2 for at, measured in self._constraints)
        if self.control is not None:
            total += self.control.value(self.control_values(parameters))
        return float(total)

    def gradient(self, parameters: np.ndarray) -> np.ndarray:
        """[P] derivatives of `value`: exact for the events, by differences in control regions."""
        base, slopes = self._mixture.yields(parameters)
        found = np.zeros(len(self.parameters))
        if self.mode != "yield":
            at, ds = self._strength(parameters, moved=True), self._strength_slope(parameters, True)
            rated = at * base
            shifts = self._rate_slopes(base, at, ds, slopes, moved=True)
            densities, factors = self._mixture.densities(parameters)
            share = self.ratios.event_weights / (rated @ densities)
            found -= 2 * shifts.T @ (densities @ share - self.observed / rated.sum())
            varied = zip(self._mixture.event_factors, factors, strict=True)
            for (c, place, interpolation), factor in varied:
                change = interpolation.slope(parameters[place]) / factor
                found[place] -= 2 * rated[c] * (densities[c] * change) @ share
        if self.mode != "shape":
            at, ds = self._strength(parameters), self._strength_slope(parameters, False)
            shifts = self._rate_slopes(base, at, ds, slopes, moved=False)
            found -= 2 * shifts.sum(axis=0) * (self.observed / (at @ base) - 1)
        for at_, measured in self._constraints:
            found[at_] += 2 * (parameters[at_] - measured)
        if self.control is not None:
            found += self.control.gradient(self.control_values(parameters)) @ self._control_places
        return found

    def density(self, parameters: np.ndarray) -> np.ndarray:
        """[N] ν p(x_i|μ, α)/p_ref(x_i), at the strength the spread has moved to. Any sign."""
        base, _ = self._mixture.yields(parameters)
        densities, _ = self._mixture.densities(parameters)
        return (self._strength(parameters, moved=True) * base) @ densities

    def not_positive(self, parameters: np.ndarray) -> int:
        """How many events have a density that is zero or below, or is no number."""
        if self.mode == "yield":
            return 0
        return int((~(self.density(parameters) > 0)).sum())

    def expected(self, parameters: np.ndarray) -> float:
        """ν(μ, α), the expected events."""
        return float(self._strength(parameters) @ self._mixture.yields(parameters)[0])

    def control_values(self, parameters: np.ndarray) -> np.ndarray:
        """The control regions' own vector of parameters, taken from [P]."""
        return self._control_places @ parameters

    # ----------------------------------------------------------------------------------- pieces

    @cached_property
    def _control_places(self) -> np.ndarray:
        """[Q, P] ones where a parameter of the control regions is one of these."""
        assert self.control is not None
        rows = [[a == b for b in self.parameters] for a in self.control.parameters]
        return np.array(rows, float)

    @cached_property
    def _constraints(self) -> list[tuple[int, float]]:
        names = self.parameters
        return [(names.index(name), self.auxiliary.get(name, 0.0)) for name in self.constrained]

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture(self.ratios, self.rates, self.normalisations, self.parameters)

    def _moved(self, parameters: np.ndarray) -> float:
        """μ + σβ."""
        if SPREAD not in self._own:
            return float(parameters[0])
        return float(parameters[0] + self.spread * parameters[self._own.index(SPREAD)])

    def _strength(self, parameters: np.ndarray, moved: bool = False) -> np.ndarray:
        return self.strengths.at(self._moved(parameters) if moved else parameters[0])

    def _strength_slope(self, parameters: np.ndarray, moved: bool) -> np.ndarray:
        return self.strengths.slope_at(self._moved(parameters) if moved else parameters[0])

    def _rate_slopes(
        self, base: np.ndarray, at: np.ndarray, ds: np.ndarray, slopes: np.ndarray, moved: bool
    ) -> np.ndarray:
        """[C, P] dν_c, with μ's and β's columns filled."""
        shifts = (at * base)[:, None] * slopes
        shifts[:, 0] = ds * base
        if moved and SPREAD in self._own:
            shifts[:, self._own.index(SPREAD)] = self.spread * ds * base
        return shifts
