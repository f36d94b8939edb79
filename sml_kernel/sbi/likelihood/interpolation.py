r"""HistFactory's interpolation between variations, of each event: polynomial within, power beyond.

With the factors g₋ and g₊ at α = −1 and +1,

.. math::
    g(α) = g_+^{α} \; (α ≥ 1), \quad g_-^{-α} \; (α ≤ −1), \quad
    1 + \sum_{i=1}^{6} a_i α^i \; (|α| < 1),

where the six a_i follow from equal value, first and second derivative at ±1: "code 4" of pyhf and
`InterpCode` 4 of ROOT (Cranmer et al., CERN-OPEN-2012-016, section 4.1.2). All events have the
same α, so that Σ a_i α^i is one product of six numbers (of α) with six terms (of the event).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_POWERS = np.arange(1, 7)


def _conditions() -> np.ndarray:
    """[6, 6] what value, slope and curvature at +1 and −1 are of the coefficients a_i."""
    signs = (-1.0) ** _POWERS
    slopes, curvatures = _POWERS, _POWERS * (_POWERS - 1)
    return np.array([signs**2, signs, slopes, -slopes * signs, curvatures, curvatures * signs])


# the inverse has sixteenths only: rounding them makes it exact
_INVERSE = np.round(16 * np.linalg.inv(_conditions())) / 16


@dataclass(frozen=True, eq=False)
class Interpolation:
    """g(α) of many events; made by `of`.

    Attributes
    ----------
    log_low, log_high
        [...] ln g₋ and ln g₊.
    terms
        [6, ...] what the polynomial must be at +1 and −1: values less one, slopes, curvatures.
    """

    log_low: np.ndarray
    log_high: np.ndarray
    terms: np.ndarray

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray) -> Interpolation:
        """From g₋ and g₊ [...], both above zero (as `Ratios` and `Rates` have checked)."""
        down, up = np.log(low), np.log(high)
        terms = [high - 1, low - 1, high * up, -low * down, high * up**2, low * down**2]
        return cls(down, up, np.array(terms))

    def factor(self, alpha: float) -> np.ndarray:
        """g(α), shape [...]."""
        if alpha >= 1:
            return np.exp(alpha * self.log_high)
        if alpha <= -1:
            return np.exp(-alpha * self.log_low)
        return 1 + np.tensordot(alpha**_POWERS @ _INVERSE, self.terms, axes=1)

    def slope(self, alpha: float) -> np.ndarray:
        """dg/dα, shape [...]."""
        if alpha >= 1:
            return self.log_high * np.exp(alpha * self.log_high)
        if alpha <= -1:
            return -self.log_low * np.exp(-alpha * self.log_low)
        powers = _POWERS * alpha ** (_POWERS - 1.0)
        return np.tensordot(powers @ _INVERSE, self.terms, axes=1)
