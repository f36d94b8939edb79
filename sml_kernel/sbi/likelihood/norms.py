r"""What keeps an interpolated density normalised between the points it was learned at.

The factors g₋ and g₊ of a process c are ratios of densities, so that E_c[g] = 1 for both. What
HistFactory interpolates event by event does not keep that: g± = exp(±t x − t²/2) moves a normal x
by ±t, and beyond ±1 it has E_c[g(x, α)] = exp(t² (α² − |α|)/2). N events then gain N ln E_c from
the number α alone: α̂ is biased, and may run away, as −2 ln L falls without end. So what enters the
likelihood is

.. math::
    \frac{g_{ca}(x, α)}{E_c[g_{ca}(x, α)]}, \qquad
    E_c[g(x, α)] = \frac{\sum_i w_i\, g(x_i, α)}{\sum_i w_i}

over a pool of events of the process. ln E_c is known on the grid `ALPHAS` and joined by a cubic
spline: its second derivative is continuous, as that of g is. Several nuisances are normalised one
by one: their product is, as far as they act on an event independently. Far out E_c is made by the
few events with the largest g; the constraint of a nuisance keeps fits away from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel.sbi.likelihood.interpolation import Interpolation
from sml_kernel.sbi.problems.origins import InputError

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

#: [K] α at which norms are known, and the range of a nuisance: beyond 5σ nothing is (as in pyhf).
ALPHAS = np.linspace(-5, 5, 41)


def log_norms(low: np.ndarray, high: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """[K] ln E_c[g(x, α_k)] of one process and one nuisance, on the grid `ALPHAS`.

    Parameters
    ----------
    low, high
        [N] g₋ and g₊ of events of the process, above zero.
    weights
        [N] that make the events those of the process; None: 1 each.

    Raises
    ------
    InputError
        A mean is not above zero: weights that sum to nothing, or factors so far apart that the
        polynomial between them is negative.
    """
    weights = np.ones(len(low)) if weights is None else np.asarray(weights, float)
    plain, total = Interpolation.of(low, high), float(weights.sum())
    sums = np.array([weights @ plain.factor(alpha) for alpha in ALPHAS.tolist()])
    if not (total > 0 and (sums > 0).all()):
        raise InputError(
            f"{len(low)} events of weight {total:.3g} have a mean of g that is not above zero at "
            f"α = {ALPHAS[sums <= 0].tolist()}: give events of the process with a total weight "
            "above zero, and look for variations g that are far from 1"
        )
    return np.log(sums / total)


@dataclass(frozen=True, eq=False)
class Normed:
    """g(α)/E_c[g(α)] of many events: an `Interpolation`, normalised at every α.

    Attributes
    ----------
    plain
        g.
    log_norm, log_slope
        Splines of ln E_c[g] and its derivative, of α.
    """

    plain: Interpolation
    log_norm: CubicSpline
    log_slope: CubicSpline

    @classmethod
    def of(cls, plain: Interpolation, norms: np.ndarray) -> Normed:
        """From g and [K] values of ln E_c[g] on `ALPHAS`."""
        from scipy.interpolate import CubicSpline

        spline = CubicSpline(ALPHAS, norms)
        return cls(plain, spline, spline.derivative())

    def factor(self, alpha: float) -> np.ndarray:
        """g(α)/E_c[g(α)], shape [N]."""
        return self.plain.factor(alpha) * np.exp(-self.log_norm(alpha))

    def slope(self, alpha: float) -> np.ndarray:
        """Its derivative in α, shape [N]."""
        slope = self.plain.slope(alpha) - self.log_slope(alpha) * self.plain.factor(alpha)
        return slope * np.exp(-self.log_norm(alpha))
