r"""The score of the FAIR Universe HiggsML uncertainty challenge, arXiv:2410.02867.

Of T intervals for a signal strength, w is the mean width and c the share that hold the truth.

.. math::
    s = −\ln[(w + ε) f(c)], \qquad
    f(c) = \begin{cases}
        1 + |(c − c_-)/σ|^4 & c < c_- \\
        1 & c_- ≤ c ≤ c_+ \\
        1 + |(c − c_+)/σ|^3 & c > c_+
    \end{cases}, \qquad
    c_± = 0.6827 ± 2σ, \quad σ = \sqrt{0.6827 · 0.3173 / T}.

Too small a coverage costs more than too large a one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sml_kernel.sbi.problems.origins import InputError

_NOMINAL = 0.6827


@dataclass(frozen=True)
class Score:
    """How good the intervals of an analysis are.

    Attributes
    ----------
    width
        w, in units of the signal strength.
    coverage
        c.
    penalty
        f(c), 1 or more.
    score
        s; larger is better.
    """

    width: float
    coverage: float
    penalty: float
    score: float


def challenge_score(intervals: np.ndarray, truth: np.ndarray, epsilon: float = 1e-2) -> Score:
    """Judge T intervals of 68.27 % for signal strengths that are known.

    Parameters
    ----------
    intervals
        [T, 2] lower and upper end.
    truth
        [T] the signal strength of each pseudo-experiment, or one for all.
    epsilon
        ε, which keeps intervals of no width from winning. It is 10⁻² by default; the program that
        the challenge published takes 10⁻³.

    Raises
    ------
    InputError
        Shapes do not agree, there is no interval, a value is not finite, an upper end is below its
        lower end, or `epsilon` is not above zero.
    """
    ends = np.asarray(intervals, float)
    values = np.asarray(truth, float)
    if (
        ends.ndim != 2
        or ends.shape[1] != 2
        or not len(ends)
        or values.shape not in ((), (len(ends),))
    ):
        raise InputError(
            f"intervals {ends.shape} and truth {values.shape}: give [T, 2] and [T], T at least 1"
        )
    wrong = ~(np.isfinite(ends).all(axis=1) & np.isfinite(values) & (ends[:, 0] <= ends[:, 1]))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"interval {first} is {ends[first, 0]} … {ends[first, 1]} for the truth "
            f"{np.broadcast_to(values, len(ends))[first]}: give finite ends in order; an interval "
            "that failed has no score"
        )
    if not epsilon > 0:
        raise InputError(f"epsilon is {epsilon}: give a number above zero")
    width = float((ends[:, 1] - ends[:, 0]).mean())
    coverage = float(((ends[:, 0] <= values) & (values <= ends[:, 1])).mean())
    penalty = _penalty(coverage, len(ends))
    return Score(width, coverage, penalty, -math.log((width + epsilon) * penalty))


def _penalty(coverage: float, trials: int) -> float:
    sigma = math.sqrt(_NOMINAL * (1 - _NOMINAL) / trials)
    away = (coverage - _NOMINAL) / sigma
    return 1 + max(-away - 2, 0) ** 4 + max(away - 2, 0) ** 3
