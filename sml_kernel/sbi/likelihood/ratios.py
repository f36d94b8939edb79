"""What inference is made from: density ratios of events, and the yields of processes. Only arrays.

Whether a ratio was learned or is known exactly, and from how many networks it was averaged, is the
business of who fills these values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sml_kernel.sbi.likelihood.norms import ALPHAS
from sml_kernel.sbi.problems.origins import InputError


@dataclass(frozen=True, eq=False)
class Ratios:
    """Density ratios r_c(x) = p_c(x)/p_ref(x) of N events, with their systematic variations.

    Attributes
    ----------
    processes
        C names. The reference may be among them: its ratio is 1.
    ratio
        [C, N] p_c(x_i)/p_ref(x_i) at nominal nuisances. Finite; below zero only where a process
        itself is signed.
    nuisances
        A names.
    variation
        [C, A, 2, N] p_c(x_i|α_a)/p_c(x_i|0) at α_a = −1, then +1; above zero, and 1 where a
        process has no such nuisance. None: 1 everywhere.
    weights
        [N] of the events; None: 1 each.
    norms
        [C, A, K] ln E_c[g_ca(x, α_k)] on the grid `norms.ALPHAS`, from `norms.log_norms`: factors g
        that are interpolated between variations are divided by E_c[g]. None: they are taken as
        they are, which is right at α = 0 and ±1 alone.

    Raises
    ------
    InputError
        Shapes do not agree, a value is not finite, a variation is not above zero, or a name comes
        twice.
    """

    processes: tuple[str, ...]
    ratio: np.ndarray
    nuisances: tuple[str, ...] = ()
    variation: np.ndarray | None = None
    weights: np.ndarray | None = None
    norms: np.ndarray | None = None

    def __post_init__(self) -> None:
        _unique("processes", self.processes)
        _unique("nuisances", self.nuisances)
        c, a = len(self.processes), len(self.nuisances)
        n = np.shape(self.ratio)[-1] if np.ndim(self.ratio) == 2 else 0
        _finite("ratio", self.ratio, (c, n))
        if self.variation is not None:
            _finite("variation", self.variation, (c, a, 2, n))
            _positive("variation", self.variation)
        if self.weights is not None:
            _finite("weights", self.weights, (n,))
        if self.norms is not None:
            _finite("norms", self.norms, (c, a, len(ALPHAS)))

    @property
    def events(self) -> int:
        """N, the rows."""
        return self.ratio.shape[1]

    @property
    def event_weights(self) -> np.ndarray:
        """[N] weights, ones where none were given."""
        return np.ones(self.events) if self.weights is None else np.asarray(self.weights, float)

    def take(self, rows: np.ndarray, weights: np.ndarray | None = None) -> Ratios:
        """The events of some rows [n], each as often as it is named, with new weights [n]."""
        varied = None if self.variation is None else self.variation[..., rows]
        return replace(self, ratio=self.ratio[:, rows], variation=varied, weights=weights)

    def weighted(self, weights: np.ndarray) -> Ratios:
        """The same events with other weights [N]."""
        return replace(self, weights=weights)


@dataclass(frozen=True, eq=False)
class Rates:
    """Expected events of each process, in the order of `Ratios.processes`.

    Attributes
    ----------
    expected
        [C] ν_c at nominal nuisances.
    errors
        [C] their Monte Carlo errors, same unit. Each above zero becomes a nuisance of its own.
    variation
        [C, A, 2] ν_c(α_a)/ν_c(0) at α_a = −1, then +1, above zero. None: 1 everywhere.

    Raises
    ------
    InputError
        As for `Ratios`, and where an error is below zero.
    """

    expected: np.ndarray
    errors: np.ndarray | None = None
    variation: np.ndarray | None = None

    def __post_init__(self) -> None:
        c = np.size(self.expected)
        _finite("expected", self.expected, (c,))
        if self.errors is not None:
            _finite("errors", self.errors, (c,))
            if (np.asarray(self.errors) < 0).any():
                raise InputError(f"errors of rates are {self.errors}: give them from zero up")
            if ((np.asarray(self.expected) <= 0) & (np.asarray(self.errors) > 0)).any():
                raise InputError(
                    f"rates {self.expected} with errors {self.errors}: a rate that has "
                    "an error is above zero; leave out processes without events"
                )
        if self.variation is not None:
            a = np.shape(self.variation)[1] if np.ndim(self.variation) == 3 else 0
            _finite("variation of rates", self.variation, (c, a, 2))
            _positive("variation of rates", self.variation)


def _unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise InputError(f"{what} are {', '.join(names)}: each name may come once")


def _finite(what: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(values) != shape:
        raise InputError(f"{what} has shape {np.shape(values)}: {shape} is wanted")
    strange = ~np.isfinite(values)
    if strange.any():
        raise InputError(
            f"{what} is not finite at {strange.sum()} places, first at "
            f"{tuple(int(k) for k in np.argwhere(strange)[0])}: look at the networks behind it"
        )


def _positive(what: str, values: np.ndarray) -> None:
    if (np.asarray(values) <= 0).any():
        raise InputError(f"{what} has {int((np.asarray(values) <= 0).sum())} values of 0 or less")
