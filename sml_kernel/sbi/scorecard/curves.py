"""What figures of calibration and closure are drawn from, as rows for a record.

A row is a bin, with everything that is drawn there: nothing is calculated again to draw it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sml_kernel.sbi.scorecard import calibration, closure
from sml_kernel.sbi.scorecard.metrics import Held


def reliability_rows(
    log_ratio: np.ndarray, held: Held, bins: int = calibration.BINS
) -> list[dict[str, Any]]:
    """Observed against predicted share of the numerator.

    Parameters
    ----------
    log_ratio
        [N] log r̂.

    Returns
    -------
    list of dict
        For each bin that has events ``predicted, observed, error`` (of their difference).
    """
    logits = np.asarray(log_ratio)[None]
    found = calibration.reliability(logits, held.numerator, held.balanced(), bins)
    triples = zip(found.predicted[0], found.observed[0], found.error[0], strict=True)
    return [
        {"predicted": float(predicted), "observed": float(observed), "error": float(error)}
        for predicted, observed, error in triples
        if np.isfinite(predicted)
    ]


def closure_rows(
    log_ratio: np.ndarray, held: Held, features: Sequence[str], bins: int = closure.BINS
) -> list[dict[str, Any]]:
    """Histograms of each feature: numerator, reference, and reference reweighted by r̂.

    Parameters
    ----------
    log_ratio
        [N] log r̂.
    features
        D names.
    bins
        Quantiles at most, for each feature.

    Returns
    -------
    list of dict
        For each feature and bin that has events: ``feature, low, high`` in the feature's unit, the
        outermost to the farthest event; shares of weight ``numerator, numerator_error, reweighted,
        reweighted_error, reference`` in it. Errors are √Σw², without the little that comes from
        normalising.
    """
    weights, of_reference = held.balanced(), ~held.numerator
    grid = closure.grid(held.x, held.numerator, weights, bins)
    moved = np.exp(np.asarray(log_ratio, float)[of_reference]) * weights[of_reference]
    found = closure.compare(grid, moved[None])
    plain = grid.sums(weights[None, of_reference])[0]
    rows = []
    for d, name in enumerate(features):
        cuts = grid.edges[d][np.isfinite(grid.edges[d])]
        limits = [float(held.x[:, d].min()), *cuts.tolist(), float(held.x[:, d].max())]
        for b, (low, high) in enumerate(itertools.pairwise(limits)):
            if grid.used[d, b]:
                rows.append(
                    {
                        "feature": name,
                        "low": low,
                        "high": high,
                        "numerator": float(grid.numerator[d, b]),
                        "numerator_error": float(np.sqrt(grid.numerator_squares[d, b])),
                        "reweighted": float(found.shares[0, d, b]),
                        "reweighted_error": float(np.sqrt(found.squares[0, d, b])),
                        "reference": float(plain[d, b]),
                    }
                )
    return rows
