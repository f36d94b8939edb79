r"""Families of densities p(x | θ) that are known exactly, to draw events from and to judge by.

With φ the density of a normal distribution of width one,

============================  ==================================================================
`GaussianShift`               φ(x − θ) in the first of d dimensions, φ in the others:
                              log p(x | δ)/p(x | 0) = δ x − δ²/2. Its logit is linear: it proves
                              throughput, not physics.
`MixtureFraction`             θ φ(x − δ) + (1 − θ) φ(x): a mixture whose fraction is measured.
`SignedMixture`               The same with a signal (1 + a) φ(x) − a φ((x − m)/s)/s, whose second
                              part comes as events of negative weight (as at next-to-leading
                              order: Frixione and Webber, JHEP 06 (2002) 029).
`QuadraticInterference`       |A_B + √θ A_S|² in 8 dimensions: see `problems.interference`.
============================  ==================================================================

Everywhere θ is a number, or the name of a class of events, which is a point of the family. The
optimal classifier of two classes is known with the densities: its logit is their `log_ratio`
(Neyman and Pearson 1933; Cranmer, Pavez and Louppe, arXiv 1506.02169).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sml_kernel.sbi.problems.origins import InputError
from sml_kernel.sbi.problems.problem import Problem

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Exact(Protocol):
    """A family of densities: what `draw`, `log_ratio` and a `Problem` ask of it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the points that events are drawn at."""

    def log_density(self, x: np.ndarray, at: str | float) -> np.ndarray:
        """log p(x | at), shape [N], of events [N, d]."""

    def sample(
        self, at: str | float, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Events [N, d] of p(x | at), and weights [N] whose expectation is one."""

    def expected(self, at: str | float) -> float:
        """The yield ν(at); one where the family says nothing about yields."""


def draw(exact: Exact, events: int = 20_000, seed: int = 0) -> Problem:
    """A problem with `events` of each class of a family, and the family as its `exact`.

    Weights are ν/`events` times those of the family. Each class has a random stream of its own:
    the same seed gives the same events of a class whatever the others are.
    """
    parts = []
    for index, name in enumerate(exact.classes):
        x, weights = exact.sample(name, events, np.random.default_rng([seed, index]))
        parts.append((x, np.full(events, index), weights * exact.expected(name) / events))
    features, labels, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Problem.of(features, labels, weights, classes=exact.classes, exact=exact)


def log_ratio(
    exact: Exact, x: np.ndarray, numerator: str | float, denominator: str | float
) -> np.ndarray:
    """log p(x | numerator)/p(x | denominator), shape [N], of events [N, d].

    Each point is a class by name, or a value of the family's parameter.
    """
    return exact.log_density(x, numerator) - exact.log_density(x, denominator)


@dataclass(frozen=True)
class GaussianShift:
    """φ shifted by θ in the first of `dimensions`; classes ``reference`` (0) and ``shifted`` (δ).

    For δ = 1 the best classifier has AUC .76025 and a balanced BCE of .58173.
    """

    delta: float = 1.0
    dimensions: int = 1

    @property
    def classes(self) -> tuple[str, ...]:
        return ("shifted", "reference")

    def log_density(self, x: np.ndarray, at: str | float) -> np.ndarray:
        """log p(x | θ), shape [N], for a shift θ."""
        moved = as_events(x, self.dimensions)
        moved[:, 0] -= self._shift(at)
        return log_normal(moved)

    def sample(
        self, at: str | float, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Events [N, d] at a shift, and weights of one."""
        x = rng.standard_normal((events, self.dimensions))
        x[:, 0] += self._shift(at)
        return x, np.ones(events)

    def expected(self, at: str | float) -> float:
        """One: a shift changes no yield."""
        return 1.0

    def _shift(self, at: str | float) -> float:
        return parameter(at, {"shifted": self.delta, "reference": 0.0}, -math.inf, math.inf)


@dataclass(frozen=True)
class MixtureFraction:
    """θ φ(x − δ) + (1 − θ) φ(x), 0 ≤ θ ≤ 1; classes ``signal`` (1) and ``background`` (0).

    With N = 1000 events at θ = .3, σ(θ̂) = 1/√(N I) is .0338 for δ = 1 and .01996 for δ = 2.
    """

    delta: float = 1.0

    @property
    def classes(self) -> tuple[str, ...]:
        return ("signal", "background")

    def log_density(self, x: np.ndarray, at: str | float) -> np.ndarray:
        """log p(x | θ), shape [N], for a signal fraction θ."""
        x = as_events(x, 1)
        return log_mixture(log_normal(x - self.delta), log_normal(x), self._fraction(at))

    def sample(
        self, at: str | float, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Events [N, 1] at a signal fraction, and weights of one."""
        signal = rng.random(events) < self._fraction(at)
        return (rng.standard_normal(events) + self.delta * signal)[:, None], np.ones(events)

    def expected(self, at: str | float) -> float:
        """One: the fraction changes the shape only."""
        return 1.0

    def _fraction(self, at: str | float) -> float:
        return parameter(at, {"signal": 1.0, "background": 0.0}, 0.0, 1.0)


@dataclass(frozen=True)
class SignedMixture:
    """A mixture whose signal has events of negative weight.

    p(x | θ) = θ p_S + (1 − θ) φ(x − δ), 0 ≤ θ ≤ 1, with p_S = (1 + a) φ(x) − a φ((x − m)/s)/s.
    Classes ``signal`` (1) and ``background`` (0). Of the signal's events a share f is negative,
    so that a = f/(1 − 2f), and all have weights of the same size, 1/(1 − 2f). The effective sample
    size is (1 − 2f)² of the events.

    Attributes
    ----------
    negative_fraction
        f, from 0 up to where p_S would become negative.
    mean, width
        m and s < 1 of what is subtracted.
    delta
        δ, where the background is.

    Raises
    ------
    InputError
        p_S would be negative somewhere: its least ratio to φ is 1 + a − (a/s) exp(m²/(2 (1 − s²))).
    """

    negative_fraction: float = 0.2
    mean: float = 0.5
    width: float = 0.6
    delta: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.negative_fraction < 0.5 and 0 < self.width < 1):
            raise InputError("a share of negative events is in [0, .5), and the width in (0, 1)")
        peak = math.exp(self.mean**2 / (2 * (1 - self.width**2))) / self.width
        if 1 + self._subtracted - self._subtracted * peak <= 0:
            most = 1 / (peak + 1)
            raise InputError(
                f"with {self.negative_fraction:.4g} of the events negative the density is not "
                f"positive everywhere: take a share below {most:.4g}, or a wider subtraction"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        return ("signal", "background")

    def log_density(self, x: np.ndarray, at: str | float) -> np.ndarray:
        """log p(x | θ), shape [N], for a signal fraction θ."""
        x = as_events(x, 1)
        plain = log_normal(x)
        narrow = log_normal((x - self.mean) / self.width) - math.log(self.width)
        a = self._subtracted
        signal = plain + np.log1p(a - a * np.exp(narrow - plain))
        return log_mixture(signal, log_normal(x - self.delta), self._fraction(at))

    def sample(
        self, at: str | float, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Events [N, 1] at a signal fraction, and weights of expectation one.

        Positive and negative events of the signal come in the ratio 1 − f to f. Backgrounds weigh
        one, so that signal is drawn with probability θ whatever f is.
        """
        signal = rng.random(events) < self._fraction(at)
        negative = signal & (rng.random(events) < self.negative_fraction)
        normal = rng.standard_normal(events)
        x = np.where(negative, self.mean + self.width * normal, normal + self.delta * ~signal)
        size = np.where(signal, 1 / (1 - 2 * self.negative_fraction), 1.0)
        return x[:, None], np.where(negative, -size, size)

    def expected(self, at: str | float) -> float:
        """One: the fraction changes the shape only."""
        return 1.0

    @property
    def _subtracted(self) -> float:
        return self.negative_fraction / (1 - 2 * self.negative_fraction)

    def _fraction(self, at: str | float) -> float:
        return parameter(at, {"signal": 1.0, "background": 0.0}, 0.0, 1.0)


def parameter(at: str | float, points: Mapping[str, float], low: float, high: float) -> float:
    """The value of a family's parameter, given itself or as the name of a class.

    Raises
    ------
    InputError
        There is no such class, or the value is outside `low` … `high`.
    """
    if isinstance(at, str):
        if at not in points:
            raise InputError(f"there is no class {at!r}; there are {', '.join(points)}")
        return points[at]
    if not low <= at <= high:
        raise InputError(f"the parameter {at} is outside {low} … {high}")
    return float(at)


def as_events(x: np.ndarray, dimensions: int) -> np.ndarray:
    """A float64 copy [N, d] of events, or the error that they have another shape."""
    x = np.array(x, float)
    if x.ndim != 2 or x.shape[1] != dimensions:
        raise InputError(f"x has shape {x.shape}: give [N, {dimensions}]")
    return x


def log_normal(x: np.ndarray) -> np.ndarray:
    """log φ of [N, d], the density of d independent normal variables, shape [N]."""
    return -0.5 * (x * x).sum(axis=1) - x.shape[1] * _HALF_LOG_2PI


def log_mixture(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """log(share · e^first + (1 − share) · e^second), shape [N]; exact for a share of 0 or 1."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log(share) + first, np.log1p(-share) + second)
