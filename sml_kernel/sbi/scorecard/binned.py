r"""Statistics of weighted histograms: covariance of normalised bins, and χ² with it.

With h_b the share of weight in bin b and q_b the sum of squares of the normalised weights there,
the shares of one sample have, to first order in their deviations, the covariance

.. math::
    V_{ab} = q_a δ_{ab} - h_a q_b - q_a h_b + h_a h_b \sum_c q_c

which is the multinomial (h_a δ_{ab} − h_a h_b)/n for equal weights. It also holds for single
negative weights.
"""

from __future__ import annotations

import numpy as np


def share_covariance(shares: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """[…, B] shares and sums of squares of weights that sum to one → V, […, B, B]."""
    cross = shares[..., :, None] * squares[..., None, :]
    total = squares.sum(axis=-1)[..., None, None]
    found = total * shares[..., :, None] * shares[..., None, :]
    found -= cross
    found -= np.swapaxes(cross, -1, -2)
    np.einsum("...bb->...b", found)[...] += squares
    return found


def chi_square(
    difference: np.ndarray, covariance: np.ndarray, used: np.ndarray, *, shares: bool = False
) -> np.ndarray:
    """dᵀ V⁻¹ d over the bins that are used.

    Parameters
    ----------
    difference
        […, B].
    covariance
        […, B, B].
    used
        […, B] bool; elsewhere difference and covariance are 0.
    shares
        The differences sum to 0, so that V has no inverse on (1, …, 1): adding a multiple of the
        product of that vector with itself gives V an inverse and leaves χ² as it is.

    Returns
    -------
    numpy.ndarray
        […]; nan where a member's numbers are not finite.
    """
    bins = difference.shape[-1]
    scale = np.einsum("...bb->...", covariance)[..., None, None] / bins
    matrix = covariance + np.where(used, 0, 1)[..., None, :] * np.eye(bins)
    if shares:
        matrix = matrix + np.where(scale > 0, scale, 1) * (used[..., :, None] & used[..., None, :])
    broken = ~(np.isfinite(matrix).all(axis=(-1, -2)) & np.isfinite(difference).all(axis=-1))
    matrix[broken] = np.eye(bins)
    solved = np.linalg.solve(matrix, difference[..., None])[..., 0]
    found = (difference * solved).sum(axis=-1)
    return np.where(broken, np.nan, found)
