r"""Is a learned ratio what it says? Its normalisation, and observed against predicted shares.

For r̂ = p_num/p_ref the mean over reference events is C = E_ref[r̂] = 1, and among events with
ŝ = r̂/(1 + r̂), in balanced classes, a share ŝ is of the numerator. Both are necessary, neither is
sufficient: a network that has learned nothing, ŝ = ½ everywhere, is calibrated.

Events are taken in bins of ŝ with about equal numbers of events, so that a network whose ŝ hardly
leaves ½ (a systematic variation) is judged as closely as one that separates well. With weights
normalised to one in each class a bin has

.. math::
    T_b = \sum_{num ∩ b} w (1 - ŝ) - \sum_{ref ∩ b} w ŝ

whose expectation is 0. Class sizes are fixed, so that the covariance of the T_b is that of two
weighted means. All bins are used: T has as many degrees of freedom as bins. (The expectation of a
χ² of 10 bins is 10, as nothing was fitted to these events.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from sml_kernel.sbi.scorecard.binned import chi_square

#: Bins of ŝ.
BINS = 10
#: Events, about, of which the edges of the bins are quantiles.
_EDGES_FROM = 2000


def normalisation(
    ratios: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """C = E_ref[r̂], its Monte Carlo error, and the effective number of reweighted events.

    Parameters
    ----------
    ratios
        [M, N] r̂ of events of the reference that were not trained on.
    weights
        [N], normalised to one.

    Returns
    -------
    mean, error, effective
        [M] each; error² = Σ w² (r̂ − C)², effective = (Σ w r̂)²/Σ (w r̂)². The error is itself an
        estimate: where few events are effective it is too small as often as C is.
    """
    moved = ratios * weights
    mean = moved.sum(axis=1)
    error = np.sqrt(((moved - mean[:, None] * weights) ** 2).sum(axis=1))
    return mean, error, mean**2 / (moved**2).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Observed against predicted share of the numerator, of M members in B bins of ŝ.

    Attributes
    ----------
    predicted, observed, error
        [M, B] weighted mean of ŝ, share of the numerator, and the error of their difference; nan
        in a bin that ties left empty.
    chi2, dof, pull
        [M] χ² of all bins with their covariance, its degrees of freedom, and the largest
        |observed − predicted|/error.
    """

    predicted: np.ndarray
    observed: np.ndarray
    error: np.ndarray
    chi2: np.ndarray
    dof: np.ndarray
    pull: np.ndarray

    def p_value(self, inflation: float = 0.0) -> np.ndarray:
        """[M] probability of a larger χ², of a calibrated network (`metrics.judge`)."""
        return special.chdtrc(self.dof, self.chi2 / (1 + inflation))


def reliability(
    logits: np.ndarray, numerator: np.ndarray, weights: np.ndarray, bins: int = BINS
) -> Reliability:
    """Observed against predicted shares (`Reliability`).

    Parameters
    ----------
    logits
        [M, N]. Equal ones are in one bin.
    numerator
        [N] bool.
    weights
        [N], normalised to one in each class.
    """
    members = len(logits)
    index = _bin_numbers(logits, bins)
    score = special.expit(logits.astype(float))
    # what is left over in the bin of the class that an event is of: 1 − ŝ or ŝ
    residual = np.where(numerator, 1 - score, score)
    sums = {}
    for is_numerator in (True, False):
        rows = np.flatnonzero(numerator == is_numerator)
        w, left, place = weights[rows], residual.take(rows, 1), index.take(rows, 1)
        sums[is_numerator] = [
            np.bincount(place.ravel(), each.ravel(), members * bins).reshape(members, bins)
            for each in (np.broadcast_to(w, left.shape), w * left, w**2 * left, (w * left) ** 2)
        ] + [np.sum(w**2)]
    total = sums[True][0] + sums[False][0]
    difference = sums[True][1] - sums[False][1]
    covariance = _covariance(*sums[True][1:]) + _covariance(*sums[False][1:])
    used = np.bincount(index.ravel(), minlength=members * bins).reshape(members, bins) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.einsum("mbb->mb", covariance))
        pulls = np.where(used, np.abs(difference) / error, 0)
        observed, gap = sums[True][0] / total, difference / total
        return Reliability(
            observed - gap,
            observed,
            error / np.abs(total),
            chi_square(difference, covariance, used),
            used.sum(axis=1),
            pulls.max(axis=1),
        )


def _bin_numbers(logits: np.ndarray, bins: int) -> np.ndarray:
    """[M, N] number of each event's bin, counted on over members."""
    members, events = logits.shape
    # every few events are enough to see where quantiles are; they cost less to sort
    few = np.sort(logits[:, :: max(1, events // _EDGES_FROM)], axis=1)
    edges = few[:, [few.shape[1] * each // bins for each in range(1, bins)]]
    index = np.zeros(logits.shape, np.uint8)
    for edge in edges.T:
        index += logits >= edge[:, None]
    return index + bins * np.arange(members)[:, None]


def _covariance(
    mean: np.ndarray, weighted: np.ndarray, squares: np.ndarray, total: np.floating
) -> np.ndarray:
    """[M, B, B] of the sums over one class of fixed size."""
    cross = weighted[:, :, None] * mean[:, None, :]
    found = total * mean[:, :, None] * mean[:, None, :] - cross - cross.transpose(0, 2, 1)
    np.einsum("mbb->mb", found)[...] += squares
    return found
