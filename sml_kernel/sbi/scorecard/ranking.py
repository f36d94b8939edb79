r"""How well logits separate two weighted classes: the area under the ROC curve, and its error.

With weights normalised to one in each class,

.. math::
    A = \sum_{i ∈ num} \sum_{j ∈ ref} w_i w_j \left([l_i > l_j] + ½ [l_i = l_j]\right)

Its error is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44 (1988) 837) with weights: each
event is replaced by its *placement*, the share of the other class that it is on the right side of,
and A is the weighted mean of the placements of either class. Negative weights enter as they are:
A is the area under the curve of the signed distribution, which is what the weights stand for; it
may leave [0, 1] where a handful of events is all there is.
"""

from __future__ import annotations

import numpy as np


def auc(
    logits: np.ndarray, numerator: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve of each member, and its statistical error.

    Parameters
    ----------
    logits
        [M, N]; ties count one half.
    numerator
        [N] bool.
    weights
        [N], normalised to one in each class.

    Returns
    -------
    area, error
        [M] each.
    """
    order = np.argsort(logits, axis=1)
    above, upto = _ties(np.take_along_axis(logits, order, axis=1))
    of_numerator = numerator[order]
    shares = [
        _below(np.where(each, weights, 0)[order], above, upto) for each in (~numerator, numerator)
    ]
    placements = np.where(of_numerator, shares[0], 1 - shares[1])
    sorted_weights = weights[order]
    area = np.where(of_numerator, sorted_weights * placements, 0).sum(axis=1)
    deviations = sorted_weights * (placements - area[:, None])
    return area, np.sqrt((deviations**2).sum(axis=1))


def _ties(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[M, N] sorted values → for each, how many are smaller and how many are not larger."""
    places = np.arange(values.shape[1])
    differs = values[:, 1:] != values[:, :-1]
    above = np.zeros(values.shape, np.intp)
    np.multiply(differs, places[1:], out=above[:, 1:])
    np.maximum.accumulate(above, axis=1, out=above)
    upto = np.full(values.shape, values.shape[1], np.intp)
    np.copyto(upto[:, :-1], places[1:], where=differs)
    backwards = upto[:, ::-1]
    np.minimum.accumulate(backwards, axis=1, out=backwards)
    return above, upto


def _below(weights: np.ndarray, above: np.ndarray, upto: np.ndarray) -> np.ndarray:
    """[M, N] weight below each place, and half of that at the same value."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    found = np.take_along_axis(sums, above, axis=1)
    found += np.take_along_axis(sums, upto, axis=1)
    return found * 0.5
