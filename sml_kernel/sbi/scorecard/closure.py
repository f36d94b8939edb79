r"""Closure: reference events reweighted by r̂ against events of the numerator, feature by feature.

Both are histograms on one grid of quantiles, normalised to one (the normalisation is judged apart,
`calibration.normalisation`). Two figures compare them:

χ² with the covariance of weighted bins of both samples, one degree of freedom less than bins.

The Wasserstein distance W = ∫ |D(x)| dx, D the difference of the two cumulative distributions, as a
sum over the edges of the grid, in units of the feature's standard deviation. If r̂ is right D is
Gaussian with mean 0 and a covariance that the weights give, so that what statistics alone cause is
known: with c = √(1 − ρ²) + ρ arcsin ρ for two edges of correlation ρ,

.. math::
    E|D| = σ \sqrt{2/π} \qquad \mathrm{Cov}(|D|, |D'|) = \frac{2}{π} σ σ' (c - 1)

Its p-value is that of a Gamma distribution of this mean and variance, and never less than that of
|∫ D dx| ≤ W, which is Gaussian (the difference of the means). For one continuous feature, where the
exact 95 and 99 % points of ∫ |Brownian bridge| are .5821 and .7518 (Johnson and Killeen, Ann.
Statist. 11 (1983)), this gives p = .044 and .009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from sml_kernel.sbi.scorecard.binned import chi_square, share_covariance

#: Bins of the grid at most; a χ² takes two of them as one.
BINS = 40
#: Least number of events of the smaller class in a bin of the χ², on average.
_EVENTS_A_BIN = 50


@dataclass(frozen=True, eq=False)
class Grid:
    """Quantiles of each feature, and the events of both classes in them; made by `grid`.

    Attributes
    ----------
    edges
        [D, K − 1], inf where a feature has less different values than bins.
    gaps
        [D, K − 1] length of feature that an edge stands for, in standard deviations.
    used
        [D, K] bool, bins with events.
    numerator, numerator_squares
        [D, K] share of the numerator's weight, and sum of squares of normalised weights.
    reference
        [D·K, n] sparse, 1 where an event of the reference is in a bin.
    """

    edges: np.ndarray
    gaps: np.ndarray
    used: np.ndarray
    numerator: np.ndarray
    numerator_squares: np.ndarray
    reference: sparse.csr_matrix

    def sums(self, values: np.ndarray) -> np.ndarray:
        """[M, n] values of reference events → [M, D, K] sums in bins."""
        found = self.reference @ np.ascontiguousarray(values.T)
        return np.ascontiguousarray(found.T).reshape(len(values), *self.used.shape)


def grid(x: np.ndarray, numerator: np.ndarray, weights: np.ndarray, bins: int = BINS) -> Grid:
    """The grid for events.

    Parameters
    ----------
    x
        [N, D].
    numerator
        [N] bool.
    weights
        [N], normalised to one in each class.
    bins
        At most; fewer where events are few.
    """
    counts = np.bincount(numerator, minlength=2)
    bins = 2 * int(np.clip(counts.min() // _EVENTS_A_BIN, 2, bins // 2))
    balanced = 1 / counts[numerator.astype(int)]
    steps = np.linspace(0, 1, bins + 1)[1:-1]
    width = x.shape[1]
    edges, gaps = np.full((2, width, bins - 1), np.inf)
    index = np.empty(x.shape, np.intp)
    for d, column in enumerate(x.T.astype(float)):
        cuts = np.unique(np.quantile(column, steps, weights=balanced, method="inverted_cdf"))
        edges[d, : len(cuts)] = cuts
        index[:, d] = np.searchsorted(cuts, column, side="right")
        gaps[d] = _gaps(column, cuts, index[:, d], bins)
    index += bins * np.arange(width)
    events = np.bincount(index.ravel(), minlength=width * bins).reshape(width, bins)
    shares, squares = (
        np.bincount(index[numerator].ravel(), np.repeat(each[numerator], width), width * bins)
        for each in (weights, weights**2)
    )
    return Grid(
        edges,
        gaps,
        events > 0,
        shares.reshape(width, bins),
        squares.reshape(width, bins),
        _indicator(index[~numerator], width * bins),
    )


def _gaps(column: np.ndarray, cuts: np.ndarray, index: np.ndarray, bins: int) -> np.ndarray:
    """Halfway to the neighbours; outermost to the mean of the events beyond, which is exact for
    a difference that is spread as the events are."""
    spread, found = column.std(), np.zeros(bins - 1)
    if not spread:
        return found
    ends = (index == 0, cuts[0]), (index == len(cuts), cuts[-1])
    outer = [column[beyond].mean() if beyond.any() else cut for beyond, cut in ends]
    halfway = (cuts[1:] + cuts[:-1]) / 2
    found[: len(cuts)] = np.diff([outer[0], *halfway, outer[1]])
    return found / spread


def _indicator(index: np.ndarray, rows: int) -> sparse.csr_matrix:
    events, width = index.shape
    columns = np.repeat(np.arange(events), width)
    ones = np.ones(index.size)
    return sparse.csr_matrix((ones, (index.ravel(), columns)), (rows, events))


@dataclass(frozen=True, eq=False)
class Closure:
    """Closure of M members in D features.

    Attributes
    ----------
    chi2, dof
        [M, D] and [D]; of a feature that does not vary nan and 0.
    distance, expected, error
        [M, D] Wasserstein distance in standard deviations of the feature, its expectation from
        statistics alone, and the standard deviation of that.
    mean_error
        [M, D] standard deviation of the difference of the means (|difference| ≤ distance).
    shares, squares
        [M, D, K] reweighted histograms of the reference, and sums of squares of their weights.
    """

    chi2: np.ndarray
    dof: np.ndarray
    distance: np.ndarray
    expected: np.ndarray
    error: np.ndarray
    mean_error: np.ndarray
    shares: np.ndarray
    squares: np.ndarray

    def chi2_p(self, inflation: float = 0.0) -> np.ndarray:
        """[M, D] probability of a larger χ² if r̂ is right (`metrics.judge`)."""
        return special.chdtrc(np.where(self.dof, self.dof, np.nan), self.chi2 / (1 + inflation))

    def distance_p(self, inflation: float = 0.0) -> np.ndarray:
        """[M, D] probability of a larger Wasserstein distance if r̂ is right."""
        distance = self.distance / np.sqrt(1 + inflation)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = self.error**2 / self.expected
            gamma = special.gammaincc(self.expected / scale, distance / scale)
            bound = special.erfc(distance / (np.sqrt(2) * self.mean_error))
        return np.maximum(gamma, bound)


def compare(grid: Grid, moved: np.ndarray) -> Closure:
    """Judge how reweighted events of the reference fill a grid.

    Parameters
    ----------
    moved
        [M, n] weight · r̂ of the reference's events, in any normalisation.
    """
    moved = moved / moved.sum(axis=1)[:, None]
    shares, squares = grid.sums(moved), grid.sums(moved**2)
    coarse = [_paired(each) for each in (shares, squares)]
    wanted = [_paired(each) for each in (grid.numerator, grid.numerator_squares)]
    used = _paired(grid.used) > 0
    covariance = share_covariance(*coarse) + share_covariance(*wanted)
    dof = used.sum(axis=-1) - 1
    chi2 = chi_square(coarse[0] - wanted[0], covariance, used, shares=True)
    distance, expected, error, mean_error = _wasserstein(grid, shares, squares)
    chi2 = np.where(dof > 0, chi2, np.nan)
    return Closure(chi2, dof, distance, expected, error, mean_error, shares, squares)


def _paired(values: np.ndarray) -> np.ndarray:
    """[…, K] → […, K/2]: each two bins as one."""
    return values[..., ::2] + values[..., 1::2].astype(values.dtype)


def _wasserstein(grid: Grid, shares: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, ...]:
    """[M, D] distance, its expectation and standard deviation, and that of the means."""
    difference = np.cumsum(shares - grid.numerator, axis=-1)[..., :-1]
    covariance = _edge_covariance(shares, squares)
    covariance += _edge_covariance(grid.numerator, grid.numerator_squares)
    sigma = np.sqrt(np.einsum("...kk->...k", covariance).clip(0))
    lengths = sigma * grid.gaps
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(sigma > 0, 1 / sigma, 0)
        correlation = (covariance * inverse[..., :, None] * inverse[..., None, :]).clip(-1, 1)
    linear = _quadratic(correlation, lengths)
    together = np.sqrt(1 - correlation**2) + correlation * np.arcsin(correlation) - 1
    variance = 2 / np.pi * _quadratic(together, lengths)
    varies = np.where(grid.gaps.any(axis=-1), 1.0, np.nan)
    return (
        varies * (np.abs(difference) * grid.gaps).sum(axis=-1),
        varies * np.sqrt(2 / np.pi) * lengths.sum(axis=-1),
        varies * np.sqrt(variance.clip(0)),
        varies * np.sqrt(linear.clip(0)),
    )


def _edge_covariance(shares: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """[…, K] → […, K − 1, K − 1] covariance of the cumulative distribution at inner edges."""
    sums, total = np.cumsum(shares, axis=-1)[..., :-1], squares.sum(axis=-1)[..., None, None]
    below = np.cumsum(squares, axis=-1)[..., :-1]
    places = np.arange(below.shape[-1])
    cross = sums[..., :, None] * below[..., None, :]
    found = below[..., np.minimum(places[:, None], places)]
    found -= cross
    found -= np.swapaxes(cross, -1, -2)
    return found + total * sums[..., :, None] * sums[..., None, :]


def _quadratic(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return ((matrix * vector[..., None, :]).sum(axis=-1) * vector).sum(axis=-1)
