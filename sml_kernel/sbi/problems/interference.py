r"""Signal, background and their interference, with exact densities, yields and likelihood.

Two amplitudes with a phase between them that runs over the events,

.. math::
    ν(μ)\, p(x|μ) = |A_B + \sqrt{μ} A_S|²
                  = μ S(x) + 2 \sqrt{μ S(x) B(x)} \cos(k·x + φ_0) + B(x),

as for the off-shell Higgs boson (Kauer and Passarino, JHEP 08 (2012) 116), where S = ν_S times a
normal density of mean m and width s < 1 in each dimension, and B = ν_B times one of mean 0 and
width 1. √(S B) is normal too, so that everything can be integrated: per dimension its width is
v = √2 s/√(1 + s²), its mean c = m/(1 + s²), and with the Bhattacharyya coefficient of the two,

.. math::
    b = \prod_j \sqrt{\frac{2 s}{1 + s²}} \exp\frac{−m_j²}{4 (1 + s²)}, \qquad
    ν_I = 2 \sqrt{ν_S ν_B}\, b\, e^{−v² |k|²/2} \cos(k·c + φ_0),

the yield is ν(μ) = μ ν_S + √μ ν_I + ν_B. In terms of the samples that a generator makes it is
(μ − √μ) S + √μ SBI + (1 − √μ) B, with SBI the sum at μ = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sml_kernel.sbi.problems.exact import as_events, log_normal, parameter
from sml_kernel.sbi.problems.origins import InputError


@dataclass(frozen=True)
class QuadraticInterference:
    """The family in the signal strength θ = μ ≥ 0; classes ``S``, ``SBI`` (μ = 1) and ``B`` (0).

    ``S`` is the signal alone, the limit of large μ: `log_density` takes μ = inf for it too.

    Attributes
    ----------
    signal, background
        ν_S at μ = 1, and ν_B.
    separation
        |m|, between the means, in widths of the background.
    width
        s of the signal, in the same unit.
    frequency, phase
        |k| and φ_0. As they stand the interference is destructive in sum and changes its sign
        over the events.
    dimensions
        d. m and k have components that fall as 1/j; the signs of k's alternate.

    Raises
    ------
    InputError
        A yield or width is not above zero, the width not below one, or there is no dimension.
    """

    signal: float = 100.0
    background: float = 900.0
    separation: float = 1.5
    width: float = 0.8
    frequency: float = 1.5
    phase: float = 2.5
    dimensions: int = 8

    def __post_init__(self) -> None:
        if min(self.signal, self.background) <= 0 or not 0 < self.width < 1 or self.dimensions < 1:
            raise InputError("yields are above zero, the width in (0, 1), and dimensions 1 or more")

    @property
    def classes(self) -> tuple[str, ...]:
        return ("S", "SBI", "B")

    @property
    def interference(self) -> float:
        """ν_I, the yield of the interference at μ = 1; negative where it is destructive."""
        s2 = self.width**2
        overlap = (2 * self.width / (1 + s2)) ** (self.dimensions / 2) * math.exp(
            -(self._mean @ self._mean) / (4 * (1 + s2))
        )
        damping = math.exp(-s2 / (1 + s2) * float(self._wave @ self._wave))
        turned = math.cos(self._wave @ self._mean / (1 + s2) + self.phase)
        return 2 * math.sqrt(self.signal * self.background) * overlap * damping * turned

    def expected(self, at: str | float) -> float:
        """ν(μ); for the class ``S``, and for μ = inf, the signal's at μ = 1."""
        mu = self._strength(at)
        if math.isinf(mu):
            return self.signal
        return mu * self.signal + math.sqrt(mu) * self.interference + self.background

    def log_density(self, x: np.ndarray, at: str | float) -> np.ndarray:
        """log p(x | μ), shape [N], of events [N, d]; −inf where the amplitudes cancel."""
        x = as_events(x, self.dimensions)
        mu = self._strength(at)
        signal, background = self._log_parts(x)
        if math.isinf(mu):
            return signal - math.log(self.signal)
        with np.errstate(divide="ignore"):
            signal = signal + np.log(mu)
            larger = np.maximum(signal, background)
            shape = larger + np.log(self._squared(x, signal, background))
        return shape - math.log(self.expected(mu))

    def log_likelihood(self, x: np.ndarray, mu: float) -> float:
        """ln L(μ) of N observed events [N, d], with their number: Σ ln(ν p(x | μ)) − ν.

        The constant ln N! is left out.
        """
        expected = self.expected(mu)
        return float(self.log_density(x, mu).sum()) + len(x) * math.log(expected) - expected

    def sample(
        self, at: str | float, events: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Events [N, d] at μ, and weights of one.

        By rejection: candidates come from μ S + B, of which |A_B + √μ A_S|² is at most the double.
        """
        mu = self._strength(at)
        share = 1.0 if math.isinf(mu) else mu * self.signal / (mu * self.signal + self.background)
        kept, missing = [], events
        while missing:
            x = self._candidates(2 * missing + 16, share, rng)
            x = x[self._accepted(x, mu, rng)][:missing]
            kept.append(x)
            missing -= len(x)
        x = np.concatenate(kept) if kept else np.empty((0, self.dimensions))
        return x, np.ones(events)

    def _candidates(self, events: int, share: float, rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal((events, self.dimensions))
        signal = rng.random(events) < share
        x[signal] = self._mean + self.width * x[signal]
        return x

    def _accepted(self, x: np.ndarray, mu: float, rng: np.random.Generator) -> np.ndarray:
        if math.isinf(mu) or mu == 0:
            return np.ones(len(x), bool)
        signal, background = self._log_parts(x)
        signal = signal + math.log(mu)
        squared = self._squared(x, signal, background)
        incoherent = 1 + np.exp(-np.abs(signal - background))
        return rng.random(len(x)) * 2 * incoherent < squared

    def _log_parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log S and log B, [N] each, yields included."""
        signal = log_normal((x - self._mean) / self.width)
        signal += math.log(self.signal) - self.dimensions * math.log(self.width)
        return signal, log_normal(x) + math.log(self.background)

    def _squared(self, x: np.ndarray, signal: np.ndarray, background: np.ndarray) -> np.ndarray:
        """|1 + t e^{iφ}|², shape [N], with t ≤ 1 the ratio of the smaller amplitude to the larger.

        Written as (1 − t)² + 2 t (1 + cos φ), two terms that are never negative.
        """
        smaller = np.exp(-0.5 * np.abs(signal - background))
        return (1 - smaller) ** 2 + 2 * smaller * (1 + np.cos(x @ self._wave + self.phase))

    @property
    def _mean(self) -> np.ndarray:
        return self.separation * self._direction(1)

    @property
    def _wave(self) -> np.ndarray:
        return self.frequency * self._direction(-1)

    def _direction(self, sign: int) -> np.ndarray:
        """[d] a unit vector with components ±1/j."""
        numbers = np.arange(1, self.dimensions + 1)
        vector = float(sign) ** (numbers - 1) / numbers
        return vector / np.linalg.norm(vector)

    def _strength(self, at: str | float) -> float:
        return parameter(at, {"S": math.inf, "SBI": 1.0, "B": 0.0}, 0.0, math.inf)
