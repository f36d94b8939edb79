"""Judging classes and ensembles, where many looks are taken at once.

A *class*, all members of one ratio, is judged by how many of them are outside their bands against
how many good ones may be. And as there are many classes with several figures each, a class has to
be outside with a confidence that holds for all of them together (Bonferroni); so have ensembles.

Members judged on one held-out fold share its fluctuations: they pass or fail together. A class of
600 members on 5 folds is no more than 5 independent looks, and its band is that of 5. Where there
are so few that even all of them outside would prove nothing, members are judged by wider bands, of
a level at which it would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from sml_kernel.sbi.scorecard.bands import Bands, Check, figures
from sml_kernel.sbi.scorecard.spread import Components, members_needed

if TYPE_CHECKING:
    import pandas as pd

    from sml_kernel.sbi.scorecard.two_sample import TwoSample


def class_checks(table: pd.DataFrame, bands: Bands | None = None) -> list[Check]:
    """Judge each class: all members of one ratio, named by its ``numerator``.

    Parameters
    ----------
    table
        A row a member that has been trained and judged: ``key``, ``numerator``, the columns of
        `metrics.columns`; and ``fold``, by which members share held-out events. Without it each
        member counts as judged on events of its own.

    Returns
    -------
    list of Check
        For each class: the share of members outside of each band of `figures`, at most what a
        binomial distribution of as many looks as there are folds allows; the share of outliers in
        cross-entropy, AUC or normalisation; and for information the distribution of losses.
    """
    bands = bands or Bands()
    classes = table.groupby("numerator", sort=False).indices
    looks = max(1, len(classes) * sum(not each.absent for each in figures(table, bands)))
    found: list[Check] = []
    for name, rows in classes.items():
        members = table.iloc[rows]
        found += _shares(members, str(name), bands, bands.level / looks)
        found += _losses(members, str(name)), _outliers(members, str(name), bands)
    return found


def _shares(members: pd.DataFrame, name: str, bands: Bands, chance: float) -> Iterator[Check]:
    """Shares outside, each of which a good class exceeds with no more than this chance."""
    folds = members["fold"].nunique() if "fold" in members else len(members)
    strict = replace(bands, level=min(bands.level, chance ** (1 / folds)))
    # the slightly larger chance is for rounding where both are alike
    most = stats.binom.isf(chance * (1 + 1e-9), folds, strict.level)
    # folds are nearly all or none, but not quite: it takes one more of them whole
    high = math.nextafter((most + 1) / folds, 0)
    note = f"{len(members):,} members, {folds:,} samples"
    if strict.level < bands.level:
        note += f", each judged at a level of {strict.level:.2g}"
    for each in figures(members, strict):
        if each.absent:
            yield Check("class", each.name, name, math.nan, note=each.absent)
        else:
            yield Check.of("class", each.name, name, 1 - each.inside.mean(), 0, high, note)


def _losses(members: pd.DataFrame, name: str) -> Check:
    quantiles = members["bce"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
    half, most = (f"{quantiles[k]:.4f}–{quantiles[-1 - k]:.4f}" for k in (1, 0))
    note = f"half in {half}, 90 % in {most}"
    return Check("class", "loss", name, quantiles[2], note=note)


def _outliers(members: pd.DataFrame, name: str, bands: Bands) -> Check:
    far = robust_z(members).abs().max(axis=1)
    outside = far[~(far <= bands.outlier)]  # also those without a number
    worst = members["key"][outside.sort_values(ascending=False, na_position="first").index]
    note = ", ".join([*worst.astype(str)[:3], *(["…"] if len(worst) > 3 else [])])
    # of few members one alone is more than the share, and no more than chance
    most = stats.binom.isf(bands.level, len(members), bands.outliers) / len(members)
    return Check.of("class", "outliers", name, len(outside) / len(members), 0, most, note)


def robust_z(members: pd.DataFrame) -> pd.DataFrame:
    """How far each member of a class is from the median of its fold.

    Returns
    -------
    pandas.DataFrame
        For ``bce``, ``auc`` and ``normalisation`` the distance over its width: 1.4826 times the
        median absolute distance in the fold or in the class, whichever is larger, and at least a
        tenth of the statistical error, as less makes no difference to anybody.
    """
    names = ["bce", "auc", "normalisation"]
    values = members[names]
    folds = members["fold"].to_numpy() if "fold" in members else np.zeros(len(members))
    away = values - values.groupby(folds).transform("median")
    width = 1.4826 * away.abs().groupby(folds).transform("median")
    width = width.clip(lower=1.4826 * away.abs().median(), axis=1)
    least = 0.1 * members[[f"{name}_error" for name in names]].median().to_numpy()
    return away / np.maximum(width, least)


def ensemble_checks(
    judged: Mapping[str, np.ndarray],
    features: Sequence[str],
    *,
    subject: str = "ensemble",
    bands: Bands | None = None,
    ensembles: int = 1,
    two_sample: TwoSample | None = None,
) -> list[Check]:
    """Judge the combined ratio of an ensemble.

    Parameters
    ----------
    judged
        From `metrics.judge` of its log ratio, [1, N].
    features
        D names.
    subject
        Its name: the numerator.
    ensembles
        In the campaign, with five checks each; bands widen so that they hold for all together.
    two_sample
        Of `two_sample.classifier_two_sample`; None: not asked.
    """
    bands = bands or Bands()
    sigmas, level = bands.sigmas(5 * ensembles), bands.level / (5 * ensembles)
    one = {name: float(values[0]) for name, values in judged.items() if np.ndim(values) == 1}

    def check(name: str, value: float, low: float, high: float, note: str = "") -> Check:
        return Check.of("ensemble", name, subject, value, low, high, note)

    def worst(name: str, figure: str) -> Check:
        p = np.asarray(judged[figure][0])
        if np.isnan(p).all():
            return Check("ensemble", name, subject, math.nan, note="no feature varies")
        value = -math.expm1(np.isfinite(p).sum() * math.log1p(-min(np.nanmin(p), 1 - 1e-16)))
        return check(name, value, level, 1.0, f"p; worst {features[int(np.nanargmin(p))]}")

    found = [_excess(one, bands, sigmas, subject)]
    width = sigmas * one["normalisation_error"]
    effective = f"{one['normalisation_events']:,.0f} events in effect"
    found.append(check("normalisation", one["normalisation"], 1 - width, 1 + width, effective))
    found.append(check("reliability", one["reliability_p"], level, 1.0, "p"))
    found += worst("closure", "closure_p"), worst("distance", "wasserstein_p")
    if two_sample is not None:
        width = sigmas * two_sample.error
        note = f"{two_sample.effective:,.0f} events in effect"
        found.append(check("c2st", two_sample.accuracy, 0.5 - width, 0.5 + width, note))
    return found


def _excess(one: Mapping[str, float], bands: Bands, sigmas: float, subject: str) -> Check:
    if math.isnan(one["information"]):
        return Check("ensemble", "excess", subject, math.nan, note="no exact ratio is known")
    most = bands.ensemble_lost * one["information"] + sigmas * one["excess_error"]
    note = f"{one['excess'] / one['information']:.2%} of information lost"
    return Check.of("ensemble", "excess", subject, one["excess"], high=most, note=note)


def spread_checks(
    components: Components,
    target_sigma: float,
    *,
    subject: str = "ensemble",
    crossed: bool = True,
) -> list[Check]:
    """Whether an ensemble is large enough.

    Parameters
    ----------
    components
        Of the result, e.g. of μ̂ of each member of a crossed design.
    target_sigma
        What its finite size may add to the uncertainty, in the unit of the result.
    crossed
        See `spread.Components.finite`.
    """
    found = list(_parts(components, subject))
    variance = float(components.finite(crossed=crossed))
    needed = members_needed(components, target_sigma, training_sample=False)
    note = f"{components.replicas * components.initialisations:,} members; {needed:,} are needed"
    if variance < 0:
        reason = f"the estimate of the variance is negative, {variance:.2g}: larger design needed"
        return [*found, Check("ensemble", "finite σ", subject, math.nan, note=reason)]
    sigma = math.sqrt(variance)
    return [*found, Check.of("ensemble", "finite σ", subject, sigma, 0, target_sigma, note)]


def _parts(components: Components, subject: str) -> Iterator[Check]:
    for name in ("bootstrap", "initialisation", "interaction"):
        variance = float(getattr(components, name))
        error = float(getattr(components, f"{name}_error"))
        sigma = math.sqrt(variance) if variance >= 0 else math.nan
        note = f"σ² = {variance:.3g} ± {error:.2g}" + ("" if variance >= 0 else ": not seen")
        yield Check("ensemble", f"{name} σ", subject, sigma, note=note)
