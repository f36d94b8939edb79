"""Variances come back as they were drawn; sums over shards are those over all members."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sml_kernel.sbi.scorecard.spread import Components, components, members_needed
from sml_kernel.sbi.scorecard.sums import Sums

BOOTSTRAP, INITIALISATION, INTERACTION = 0.8, 0.3, 0.5  # standard deviations


def drawn(replicas: int, initialisations: int, experiments: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        BOOTSTRAP * rng.normal(size=(replicas, 1, experiments))
        + INITIALISATION * rng.normal(size=(1, initialisations, experiments))
        + INTERACTION * rng.normal(size=(replicas, initialisations, experiments))
    )


def test_drawn_components_come_back_without_bias_and_with_their_error() -> None:
    """4,000 designs of 12 × 5: means within their error, jackknife errors of the right size."""
    found = components(drawn(12, 5, 4000, 1))
    for name, sigma in (
        ("bootstrap", BOOTSTRAP),
        ("initialisation", INITIALISATION),
        ("interaction", INTERACTION),
    ):
        values, errors = getattr(found, name), getattr(found, f"{name}_error")
        assert abs(values.mean() - sigma**2) < 4 * values.std() / math.sqrt(4000), name
        # the jackknife of few rows is conservative: never too small, at most by a third too large
        assert 0.97 < np.sqrt((errors**2).mean()) / values.std() < 1.33, name


def test_one_large_design_gives_its_components_within_their_errors() -> None:
    found = components(drawn(60, 40, 1, 2)[..., 0])
    for name, sigma in (("bootstrap", BOOTSTRAP), ("interaction", INTERACTION)):
        error = getattr(found, f"{name}_error")
        assert abs(getattr(found, name) - sigma**2) < 3.5 * error < sigma**2


def test_a_component_that_is_not_there_is_negative_half_of_the_time() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(12, 1, 4000)) + rng.normal(size=(12, 5, 4000))
    found = components(y)
    # MS_a/MS_e is F-distributed with 4 and 44 degrees of freedom
    wanted = stats.f.cdf(1, 4, 44)
    low, high = stats.binom.interval(0.999, 4000, wanted)
    assert low <= (found.initialisation < 0).sum() <= high
    assert abs(found.initialisation.mean()) < 4 * found.initialisation.std() / math.sqrt(4000)
    assert "initialisation" in found.negative


def test_the_mean_of_an_ensemble_varies_as_its_components_say() -> None:
    found = Components(*np.square([BOOTSTRAP, INITIALISATION, INTERACTION]), *np.zeros(3), 12, 5)
    means = drawn(12, 5, 8000, 5).mean(axis=(0, 1))
    assert means.var() == pytest.approx(found.finite(crossed=True), rel=0.08)
    rng = np.random.default_rng(6)
    own = (
        BOOTSTRAP * rng.normal(size=(12, 1, 8000))
        + math.hypot(INITIALISATION, INTERACTION) * rng.normal(size=(12, 5, 8000))
    ).mean(axis=(0, 1))
    assert own.var() == pytest.approx(found.finite(), rel=0.08)
    assert found.total() == found.finite() + BOOTSTRAP**2


def test_members_needed_reach_the_target_and_one_less_does_not() -> None:
    found = components(drawn(60, 40, 1, 2)[..., 0])
    for each in (1, 4):
        members = members_needed(found, 0.9, initialisations=each)
        assert found.total(members // each, each) <= 0.81 < found.total(members // each - 1, each)
    alone = members_needed(found, 0.05, training_sample=False)
    assert found.finite(alone, 1) <= 0.05**2 < found.finite(alone - 1, 1)
    with pytest.raises(ValueError, match=r"alone gives σ = 0\.\d+.*more training events do"):
        members_needed(found, 0.5)


def test_a_design_with_a_hole_is_refused_with_its_place() -> None:
    y = drawn(4, 3, 1, 1)[..., 0]
    y[2, 1] = np.nan
    with pytest.raises(ValueError, match="replica 2, initialisation 1"):
        components(y)
    with pytest.raises(ValueError, match="at least 2"):
        components(y[:, :1])


def ratios(members: int = 37, events: int = 200) -> np.ndarray:
    return np.exp(np.random.default_rng(8).normal(3, 1, (members, events)))


def test_sums_are_those_over_all_members() -> None:
    r, sums = ratios(), Sums(200, probes=[3, 150])
    sums.add(np.log(r))
    assert sums.combine() == pytest.approx(r.mean(axis=0), rel=1e-13)
    assert sums.combine("geometric") == pytest.approx(np.exp(np.log(r).mean(axis=0)), rel=1e-13)
    assert sums.sigma() == pytest.approx(r.std(axis=0, ddof=1), rel=1e-12)
    assert sums.sigma("geometric") == pytest.approx(np.log(r).std(axis=0, ddof=1), rel=1e-12)
    assert sums.combine("median") == pytest.approx(np.median(r[:, [3, 150]], axis=0), rel=1e-13)


def test_the_same_order_gives_the_same_bits_and_a_file_gives_them_back() -> None:
    r = ratios()

    def shards(cut: int) -> list[Sums]:
        found = []
        for rows in (slice(0, 20), slice(20, None)):
            found.append(Sums(200, probes=[5]))
            for start in range(0, len(r[rows]), cut):
                found[-1].add(np.log(r[rows][start : start + cut]))
        return found

    def merged(parts: list[Sums]) -> Sums:
        total = Sums(200, probes=[5])
        for each in parts:
            total.merge(Sums.of_arrays(each.arrays()))
        return total

    one, other = merged(shards(5)), merged(shards(5))
    for how in ("arithmetic", "geometric", "median"):
        np.testing.assert_array_equal(one.combine(how), other.combine(how))
    np.testing.assert_array_equal(one.sigma(), other.sigma())
    assert one.members == 37
    assert one.combine() == pytest.approx(r.mean(axis=0), rel=1e-13)
    assert one.sigma() == pytest.approx(r.std(axis=0, ddof=1), rel=1e-12)


def test_sums_refuse_what_is_no_ratio_and_say_which() -> None:
    logits, sums = np.log(ratios(3)), Sums(200)
    logits[1, 7] = np.nan
    with pytest.raises(ValueError, match="member 1 of the block, event 7, is nan"):
        sums.add(logits)
    assert sums.members == 0
    with pytest.raises(ValueError, match="0 members"):
        sums.combine()
    sums.add(logits[:1])
    with pytest.raises(ValueError, match="2 are needed"):
        sums.sigma()
    with pytest.raises(ValueError, match="no probes"):
        sums.combine("median")
    with pytest.raises(ValueError, match="do not go with"):
        sums.merge(Sums(100))
