"""Yields and densities of processes as nuisances and normalisations move them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sml_kernel.sbi.likelihood.interpolation import Interpolation
from sml_kernel.sbi.likelihood.norms import Normed
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios

#: A variation that is not 1 everywhere: its process, the place of its parameter, and its factor.
Varied = tuple[int, int, Interpolation | Normed]


@dataclass(frozen=True, eq=False)
class Mixture:
    """What `Likelihood` multiplies the strengths with. Parameters [P] are those of `Likelihood`.

    Attributes
    ----------
    ratios, rates, normalisations
        As there.
    parameters
        [P] names.
    """

    ratios: Ratios
    rates: Rates
    normalisations: Mapping[str, Sequence[str]]
    parameters: tuple[str, ...]

    def yields(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[C] ν_c without the strength, and [C, P] the derivatives of its logarithm."""
        expected = np.array(self.rates.expected, float)
        slopes = np.zeros((len(expected), len(self.parameters)))
        for c, place in self._scaled:
            expected[c] *= parameters[place]
            slopes[c, place] = 1 / max(parameters[place], 1e-300)  # the yield is 0 at the limit 0
        for c, place, interpolation in self._rate_factors:
            factor = interpolation.factor(parameters[place])
            expected[c] *= factor
            slopes[c, place] = interpolation.slope(parameters[place]) / factor
        for c, place, relative in self._uncertain:
            expected[c] *= np.exp(parameters[place] * relative)
            slopes[c, place] = relative
        return expected, slopes

    def densities(self, parameters: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """[C, N] r_c g_c, and the factors [N] of `event_factors`."""
        densities = np.array(self.ratios.ratio, float)
        factors = [each.factor(parameters[place]) for _, place, each in self.event_factors]
        for (c, _, _), factor in zip(self.event_factors, factors, strict=True):
            densities[c] *= factor
        return densities, factors

    @cached_property
    def event_factors(self) -> Sequence[Varied]:
        """The factors g, over their means where norms are known."""
        plain, norms = self._varied(self.ratios.variation), self.ratios.norms
        if norms is None:
            return plain
        places = [self.parameters.index(name) for name in self.ratios.nuisances]
        return [
            (c, place, Normed.of(each, norms[c, places.index(place)])) for c, place, each in plain
        ]

    @cached_property
    def _rate_factors(self) -> list[tuple[int, int, Interpolation]]:
        return self._varied(self.rates.variation)

    def _varied(self, variation: np.ndarray | None) -> list[tuple[int, int, Interpolation]]:
        if variation is None:
            return []
        return [
            (c, self.parameters.index(name), Interpolation.of(low, high))
            for c, of_process in enumerate(np.asarray(variation, float))
            for name, (low, high) in zip(self.ratios.nuisances, of_process, strict=True)
            if (low != 1).any() or (high != 1).any()
        ]

    @cached_property
    def _scaled(self) -> list[tuple[int, int]]:
        return [
            (self.ratios.processes.index(process), self.parameters.index(name))
            for name, members in self.normalisations.items()
            for process in members
        ]

    @cached_property
    def _uncertain(self) -> list[tuple[int, int, float]]:
        """Process, place and relative error of each yield that has a Monte Carlo error."""
        if self.rates.errors is None:
            return []
        pairs = zip(self.ratios.processes, self.rates.errors, self.rates.expected, strict=True)
        return [
            (c, self.parameters.index(f"mc_{process}"), float(error / expected))
            for c, (process, error, expected) in enumerate(pairs)
            if error > 0
        ]
