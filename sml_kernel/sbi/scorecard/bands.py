"""Bands for the figures of members, and which members are inside.

A band that holds 95 % of good members leaves 500 of 10,000 good ones outside. A member's verdict is
for looking at that member; whether a campaign is good is asked of classes and ensembles
(`verdicts`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Bands:
    """What is asked of a figure.

    Attributes
    ----------
    level
        Share of good members outside of a band, and probability that a good campaign has any class
        or ensemble outside; .0455 is 2σ.
    lost
        Share of the information (log 2 − the optimal cross-entropy) that a member may lose.
    ensemble_lost
        The same of an ensemble.
    outlier
        Distance from the median of its class, in robust standard deviations, from which on a
        member is an outlier.
    outliers
        Share of a class that may be.
    failed
        Share of members that may have failed.
    """

    level: float = 0.0455
    lost: float = 0.05
    ensemble_lost: float = 0.01
    outlier: float = 6.0
    outliers: float = 0.005
    failed: float = 0.001

    def sigmas(self, looks: int = 1) -> float:
        """Half-width of a two-sided band in σ, of which one in so many looks."""
        return float(stats.norm.isf(self.level / looks / 2))


@dataclass(frozen=True)
class Check:
    """A figure and its band.

    Attributes
    ----------
    level
        ``"member"``, ``"class"`` or ``"ensemble"``.
    name, subject
        What is asked, and of which member, class or ensemble.
    value, low, high
        Infinite where there is no limit on a side; nan where there is no number.
    passed
        None: not judged, for the reason in `note`.
    note
        What to know about it.
    """

    level: str
    name: str
    subject: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    passed: bool | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        level: str,
        name: str,
        subject: str,
        value: float,
        low: float = -math.inf,
        high: float = math.inf,
        note: str = "",
    ) -> Check:
        """Judged: what is not a number does not pass."""
        value = float(value)
        return cls(level, name, subject, value, low, high, bool(low <= value <= high), note)


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure of M members with its band.

    Attributes
    ----------
    name
        ``"excess"``, ``"normalisation"``, ….
    value, low, high
        [M], or a number for all; limits infinite on a side without one.
    absent
        Why no member has it, if none has that has a cross-entropy at all; empty: it is judged.
    """

    name: str
    value: np.ndarray
    low: np.ndarray | float
    high: np.ndarray | float
    absent: str

    @property
    def inside(self) -> np.ndarray:
        """[M] bool; what is not a number is not inside."""
        return np.asarray((self.value >= self.low) & (self.value <= self.high))

    def check(self, member: int, key: str) -> Check:
        """The check of one member."""
        if self.absent:
            return Check("member", self.name, key, math.nan, note=self.absent)
        low, high = (
            float(np.broadcast_to(each, self.value.shape)[member]) for each in (self.low, self.high)
        )
        return Check.of("member", self.name, key, self.value[member], low, high)


def figures(table: pd.DataFrame, bands: Bands) -> list[Figure]:
    """What members are judged by, from the columns of `metrics.columns`.

    =============  =================================  ==============================================
    excess         over the exact ratio's entropy     ≤ `Bands.lost` of the information, + errors
    normalisation  (C − 1)/error                      within ± errors
    reliability    p-value of the χ²                  ≥ level
    overfit        (held-out − training loss)/error   ≤ errors
    closure        p-value of the worst feature's χ²  ≥ level (Šidák: for D looks)
    distance       the same of the Wasserstein one    ≥ level
    =============  =================================  ==============================================
    """
    sigmas, level = bands.sigmas(), bands.level
    excess = _values(table, "excess")
    allowed = bands.lost * _values(table, "information") + sigmas * _values(table, "excess_error")
    gap = _values(table, "overfit") / _values(table, "overfit_error")
    pull = _values(table, "normalisation_pull")
    closure, distance = (_smallest(table, name) for name in ("closure_p", "wasserstein_p"))
    known: list[tuple[str, np.ndarray, float, np.ndarray | float, str]] = [
        ("excess", excess, -math.inf, allowed, "no exact ratio is known"),
        ("normalisation", pull, -sigmas, sigmas, "nobody has one"),
        ("reliability", _values(table, "reliability_p"), level, 1.0, "nobody has one"),
        ("overfit", gap, -math.inf, sigmas, "no training loss is known"),
        ("closure", closure, level, 1.0, "no feature varies"),
        ("distance", distance, level, 1.0, "no feature varies"),
    ]
    # of a member whose logits are not finite nothing is known: that is no reason to pass it over
    whole = np.isfinite(_values(table, "bce"))
    return [
        Figure(name, value, low, high, reason if whole.any() and not _any(value[whole]) else "")
        for name, value, low, high, reason in known
    ]


def _any(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _values(table: pd.DataFrame, column: str) -> np.ndarray:
    return table[column].to_numpy(float) if column in table else np.full(len(table), np.nan)


def _smallest(table: pd.DataFrame, name: str) -> np.ndarray:
    """[M] p-value of the worst feature, for as many looks as there are features (Šidák)."""
    of_features = table[[each for each in table if str(each).startswith(f"{name}:")]]
    p = of_features.dropna(axis=1, how="all").to_numpy(float)
    if not p.size:
        return np.full(len(table), np.nan)
    return -np.expm1(p.shape[1] * np.log1p(-p.min(axis=1).clip(max=1 - 1e-16)))


def member_checks(table: pd.DataFrame, bands: Bands | None = None) -> pd.DataFrame:
    """Which members are inside which bands.

    Parameters
    ----------
    table
        A row a member, with the columns of `metrics.columns`.

    Returns
    -------
    pandas.DataFrame
        Of the same index; a nullable boolean column for each figure, NA where nobody has it, and
        ``passed``. A member without a number that others have is outside.
    """
    import pandas as pd

    columns = {
        each.name: pd.array([pd.NA] * len(table) if each.absent else each.inside, "boolean")
        for each in figures(table, bands or Bands())
    }
    found = pd.DataFrame(columns, index=table.index)
    return found.assign(passed=found.fillna(True).all(axis=1).astype("boolean"))


def one_member(table: pd.DataFrame, key: str, bands: Bands | None = None) -> list[Check]:
    """The checks of one of the members of a table, with values and bands.

    Raises
    ------
    KeyError
        No such member has been judged.
    """
    place = np.flatnonzero(table["key"] == key)
    if not len(place):
        raise KeyError(f"no member {key!r} has been judged")
    return [each.check(int(place[0]), key) for each in figures(table, bands or Bands())]
