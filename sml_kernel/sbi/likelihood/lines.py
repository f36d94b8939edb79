r"""Many toys of a plain mixture fitted at once: no nuisances but the spread, strengths linear in μ.

The density of event i is then A_i + m B_i, the expected events a + b m, and

.. math::
    S(m) = −2 \sum_i \ln (A_i + m B_i) + 2 n \ln (a + b m), \qquad
    Y(μ) = 2 (a + b μ) − 2 n \ln (a + b μ)

are the two parts of −2 ln L. With a spread σ, m and μ differ by σβ, and −2 ln L is
S(m) + Y(μ) + ((m − μ)/σ − t)² with t the measured β; μ for a given m is the root of a quadratic.
So every fit is one in one variable: the slope of −2 ln L in m has one change of sign in the domain
where all densities are above zero, which Newton steps find, and halving where such a step would
leave the bracket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sml_kernel.sbi.likelihood.model import MODES

_STEPS = 200
_FAR = 1e6  # stands for no limit: bisection from there is 20 steps more
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Lines:
    """T toys of at most n events.

    Attributes
    ----------
    constant, slope
        [T, n] A and B; 1 and 0 in places without an event.
    counts
        [T] events.
    base, rise
        a and b.
    mode
        ``shape``, ``yield`` or ``both``.
    spread
        σ; 0: none.
    lower, upper
        Limits of μ.
    shift
        [T] σ t; None: zero.
    """

    constant: np.ndarray
    slope: np.ndarray
    counts: np.ndarray
    base: float
    rise: float
    mode: str
    spread: float = 0.0
    lower: float = -np.inf
    upper: float = np.inf
    shift: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.mode in MODES


@dataclass(frozen=True, eq=False)
class LineFits:
    """Fits of T toys: the best μ, its error from the curvature, and −2 ln L; nan where none is."""

    values: np.ndarray
    errors: np.ndarray
    minima: np.ndarray


def fit_lines(lines: Lines, start: float) -> LineFits:
    """The best μ of each toy.

    Parameters
    ----------
    lines
        T toys.
    start
        Where to begin; the result does not depend on it.
    """
    low, high = _domain(lines)
    if not lines.spread or lines.mode == "yield":
        low, high = np.maximum(low, lines.lower), np.minimum(high, lines.upper)
    m = _root(lines, low, high, start, None)
    mu, _, pull, _ = _strength(lines, m, None)
    _, curvature = _shape_slopes(lines, m, np.arange(len(m)))
    errors = _errors(lines, curvature, _yield_curvature(lines, mu))
    return LineFits(mu, errors, _values(lines, m, mu) + pull)


def minimum_at(lines: Lines, mu: float) -> np.ndarray:
    """[T] the least −2 ln L with the strength held at `mu`; nan outside the domain of a toy."""
    if not lines.spread or lines.mode == "yield":
        held = np.full(len(lines.counts), mu)
        return _values(lines, held, held)
    low, high = _domain(lines)
    m = _root(lines, low, high, mu, mu)
    _, _, pull, _ = _strength(lines, m, mu)
    return _values(lines, m, np.full(len(m), mu)) + pull


def _domain(lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    """[T] between which m all densities and the yield are above zero."""
    a, b = lines.constant, lines.slope
    with np.errstate(divide="ignore", invalid="ignore"):
        poles = -a / b
    low = np.where(b > 0, poles, -np.inf).max(axis=1, initial=-np.inf)
    high = np.where(b < 0, poles, np.inf).min(axis=1, initial=np.inf)
    if lines.mode == "yield":
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    if lines.rise > 0:
        low = np.maximum(low, -lines.base / lines.rise)
    elif lines.rise < 0:
        high = np.minimum(high, -lines.base / lines.rise)
    elif lines.base <= 0:
        low = np.full_like(low, np.nan)
    if lines.mode != "yield":
        never = ((b == 0) & (a <= 0)).any(axis=1)
        low = np.where(never, np.nan, low)
    return low, np.where(low < high, high, np.nan)


def _root(
    lines: Lines, low: np.ndarray, high: np.ndarray, start: float, held: float | None
) -> np.ndarray:
    """[T] where the slope in m changes its sign between the ends, or the end it points to."""
    found = np.full(len(low), np.nan)
    low, high = np.maximum(low, -_FAR), np.minimum(high, _FAR)
    active = np.flatnonzero(low <= high)
    m = np.clip(start, low, high)
    outside = (m <= low) | (m >= high)
    m[outside] = (low[outside] + high[outside]) / 2
    for _ in range(_STEPS):
        if not len(active):
            return found
        here = m[active]
        slope, curvature = _slopes(lines, here, active, held)
        low[active] = np.where(slope <= 0, here, low[active])
        high[active] = np.where(slope >= 0, here, high[active])
        with np.errstate(divide="ignore", invalid="ignore"):
            step = here - slope / curvature
        inside = (curvature > 0) & (step > low[active]) & (step < high[active])
        step = np.where(inside, step, (low[active] + high[active]) / 2)
        done = np.abs(step - here) <= _TOLERANCE * np.maximum(1, np.abs(here))
        m[active] = step
        found[active[done]] = step[done]
        active = active[~done]
    return found


def _slopes(
    lines: Lines, m: np.ndarray, toys: np.ndarray, held: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative in m of −2 ln L, least in μ unless that is held."""
    slope, curvature = _shape_slopes(lines, m, toys)
    _, moved, _, kept = _strength(lines, m, held, toys)
    if lines.spread and lines.mode != "yield":
        return slope + moved, curvature + kept
    if lines.mode == "shape":
        return slope, curvature
    expected = lines.base + lines.rise * m
    counts = lines.counts[toys]
    return (
        slope + 2 * lines.rise * (1 - counts / expected),
        curvature + 2 * counts * (lines.rise / expected) ** 2,
    )


def _shape_slopes(lines: Lines, m: np.ndarray, toys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S' and S'' [k] at m of some toys; zero where the mode has no shape."""
    if lines.mode == "yield":
        return np.zeros(len(m)), np.zeros(len(m))
    whole = len(toys) == len(lines.counts)
    a, b = (each if whole else each[toys] for each in (lines.constant, lines.slope))
    relative = b / (a + m[:, None] * b)
    of_yield = lines.rise / (lines.base + lines.rise * m)
    counts = lines.counts[toys]
    slope = -2 * relative.sum(axis=1) + 2 * counts * of_yield
    squares = np.einsum("tn,tn->t", relative, relative)
    return slope, 2 * squares - 2 * counts * of_yield**2


def _yield_curvature(lines: Lines, mu: np.ndarray) -> np.ndarray:
    if lines.mode == "shape":
        return np.zeros(len(mu))
    return 2 * lines.counts * (lines.rise / (lines.base + lines.rise * mu)) ** 2


def _errors(lines: Lines, shape: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """√ of twice the inverse of the curvature that is left when m is profiled."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if lines.spread and lines.mode != "yield":
            shape = 1 / (1 / shape + lines.spread**2 / 2)
        errors = np.sqrt(2 / (shape + rates))
    return np.where(np.isfinite(errors), errors, np.nan)


def _strength(
    lines: Lines, m: np.ndarray, held: float | None, toys: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """μ at m, then slope, value and curvature in m of ((m − μ)/σ)² with the yield's part."""
    zero = np.zeros(len(m))
    if not lines.spread or lines.mode == "yield":
        return m, zero, zero, zero
    sigma2 = lines.spread**2
    toys = np.arange(len(m)) if toys is None else toys
    if lines.shift is not None:
        m = m - lines.shift[toys]
    if held is not None:
        mu, follows = np.full(len(m), held), zero
    elif lines.mode == "shape" or not lines.rise:
        mu, follows = m, zero + 1
    else:
        mu, follows = _quadratic(lines, m, lines.counts[toys])
    clipped = np.clip(mu, lines.lower, lines.upper)
    follows = np.where(clipped == mu, follows, 0)
    away = m - clipped
    return clipped, 2 * away / sigma2, away**2 / sigma2, 2 * (1 - follows) / sigma2


def _quadratic(lines: Lines, m: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ where the slope of Y(μ) + ((m − μ)/σ)² is zero, and dμ/dm; a quadratic in ν = a + bμ."""
    square = (lines.rise * lines.spread) ** 2
    linear = square - (lines.base + lines.rise * m)
    root = np.sqrt(linear**2 + 4 * counts * square)
    expected = (root - linear) / 2
    return (expected - lines.base) / lines.rise, (1 - linear / root) / 2


def _values(lines: Lines, m: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """S(m) + Y(μ), or the one that the mode has; nan outside the domain."""
    total = np.zeros(len(m))
    with np.errstate(invalid="ignore", divide="ignore"):
        if lines.mode != "yield":
            logs = np.log(lines.constant + m[:, None] * lines.slope).sum(axis=1)
            total += -2 * logs + 2 * lines.counts * np.log(lines.base + lines.rise * m)
        if lines.mode != "shape":
            expected = lines.base + lines.rise * mu
            total += 2 * expected - 2 * lines.counts * np.log(expected)
    return np.where(np.isfinite(total), total, np.nan)
