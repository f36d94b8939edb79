"""A good campaign passes and a bad one fails where it is bad; nothing that is missing is hidden."""

from __future__ import annotations

import functools
import html.parser
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sml_kernel import records, sbi
from sml_kernel.sbi.scorecard.bands import Bands, Check, member_checks
from sml_kernel.sbi.scorecard.card import Scorecard, scorecard
from sml_kernel.sbi.scorecard.metrics import Held, columns, judge
from sml_kernel.sbi.scorecard.spread import components
from sml_kernel.sbi.scorecard.two_sample import TwoSample, classifier_two_sample
from sml_kernel.sbi.scorecard.verdicts import class_checks, ensemble_checks, robust_z, spread_checks

FAMILY = sbi.GaussianShift(delta=1.0, dimensions=2)
FOLDS, OF_FOLD = 5, 12
FEATURES = ("pt_gev", "mass_gev")


@functools.cache
def held_out(seed: int, events: int = 3000) -> Held:
    problem = sbi.draw(FAMILY, events, seed)
    exact = sbi.log_ratio(FAMILY, problem.features, *problem.classes)
    return Held(problem.features, problem.labels == 0, problem.weights, exact)


def campaign(seed: int, name: str = "signal", scale: float = 1.0) -> pd.DataFrame:
    """Members whose logits are the exact one, a little off as training leaves them, times `scale`;
    all of a fold are judged on the same events."""
    rng = np.random.default_rng([seed, 1])
    parts = []
    for fold in range(FOLDS):
        held = held_out(1000 * seed + fold)
        off = 1 + 0.01 * rng.normal(size=(OF_FOLD, 1))
        figures = judge(scale * off * held.exact, held, training_loss=np.full(OF_FOLD, 0.582))
        keys = [f"{name}-{fold}-{k}" for k in range(OF_FOLD)]
        parts.append(
            pd.DataFrame(
                {"key": keys, "numerator": name, "fold": fold, **columns(figures, FEATURES)}
            )
        )
    return pd.concat(parts, ignore_index=True)


def ensemble(seed: int, scale: float = 1.0) -> list[Check]:
    held = held_out(seed, 20_000)
    return ensemble_checks(judge(scale * held.exact[None], held), FEATURES, subject="signal")


@pytest.fixture(scope="module")
def good() -> pd.DataFrame:
    return campaign(3)


def test_good_campaigns_pass_as_often_as_the_band_says() -> None:
    """25 campaigns: classes are outside in at most 4.55 % of them, although one of five folds is
    often outside with all its members."""
    checks = [class_checks(campaign(seed)) for seed in range(10, 35)]
    failing = sum(any(each.passed is False for each in found) for found in checks)
    assert failing <= stats.binom.isf(1e-3, 25, Bands().level)
    shares = [each.value for found in checks for each in found if each.name == "reliability"]
    assert max(shares) >= 1 / FOLDS  # so members alone would have failed these


def test_good_ensembles_pass_as_often_as_the_band_says() -> None:
    cards = [ensemble(seed) for seed in range(40)]
    failing = sum(any(each.passed is False for each in found) for found in cards)
    assert failing <= stats.binom.isf(1e-3, 40, Bands().level)


def test_an_undertrained_class_fails_and_the_good_one_beside_it_does_not(good) -> None:
    card = scorecard(pd.concat([good, campaign(3, "ttbar", scale=0.3)]), ensemble(5, scale=0.3))
    assert not card.passed
    failing = {(each.level, each.name, each.subject) for each in card.checks if not each.passed}
    wanted = {"excess", "reliability", "closure", "distance"}
    assert {name for level, name, of in failing if (level, of) == ("class", "ttbar")} >= wanted
    assert {name for level, name, _ in failing if level == "ensemble"} >= wanted
    judged = [each for each in card.checks if each.subject == "signal" and each.level == "class"]
    assert not [each.name for each in judged if each.passed is False]
    assert {each.name for each in judged if each.passed is None} == {"loss"}
    bad = card.member("ttbar-2-7")
    assert {each.name for each in bad if not each.passed} >= wanted
    assert card.members.set_index("key").loc["ttbar-2-7", "inside:passed"] is np.False_


def test_a_single_bad_network_is_an_outlier_by_name(good) -> None:
    one = good.copy()
    one.loc[17, "bce"] += 0.05
    (found,) = (each for each in class_checks(one) if each.name == "outliers")
    assert found.passed, "one of 60 may be"
    assert found.note == "signal-1-5"
    assert found.value == pytest.approx(1 / len(one))
    one.loc[18, "bce"] += 0.05
    (found,) = (each for each in class_checks(one) if each.name == "outliers")
    assert not found.passed
    assert set(found.note.split(", ")) == {"signal-1-5", "signal-1-6"}
    assert (robust_z(good).abs() < 6).to_numpy().all()


def test_a_class_that_is_judged_on_one_sample_can_fail(good) -> None:
    """All 12 members share its fluctuation: it takes a small p-value, but it can."""
    for table, wanted in ((good, False), (campaign(3, scale=0.3), True)):
        found = class_checks(table[table.fold == 0])
        failing = {each.name for each in found if each.passed is False}
        assert ({"reliability", "closure"} <= failing) == wanted, failing


def test_what_is_missing_is_said_in_every_form_and_what_is_pending_fails(good) -> None:
    table = good.assign(failure=None).astype({"failure": "string"})
    table.loc[[3, 4], "failure"] = "diverged: validation loss nan after epoch 2"
    card = scorecard(table, planned=60, bands=Bands(failed=0.04))
    text = "58 of 60 members; 2 failed"
    assert card.missing == text
    assert card.passed
    for form in (
        repr(card),
        card._repr_html_(),
        card.rows()[0]["note"],
        card.table().attrs["members"],
    ):
        assert text in form
    assert "diverged" in str(card.rows())
    assert not scorecard(table, planned=60).passed  # of 60 none may fail
    pending = scorecard(good, planned=61, bands=Bands(failed=0.04))
    assert not pending.passed
    assert pending.missing == "60 of 61 members; 1 pending"
    with pytest.raises(ValueError, match="give each member once"):
        scorecard(pd.concat([good, good]))
    with pytest.raises(ValueError, match="none is done"):
        scorecard(table.assign(failure="diverged"))


def test_a_figure_that_nobody_has_is_not_judged_and_one_that_one_lacks_fails(good) -> None:
    table = good.drop(columns=["excess", "overfit"])
    verdicts = member_checks(table)
    assert verdicts["excess"].isna().all()
    card = scorecard(table)
    (excess,) = (each for each in card.checks if (each.level, each.name) == ("class", "excess"))
    assert excess.passed is None
    assert np.isnan(excess.value)
    assert excess.note == "no exact ratio is known"
    table.loc[5, table.columns[3:]] = np.nan
    assert not member_checks(table).loc[5, "passed"]
    (found,) = (each for each in class_checks(table) if each.name == "outliers")
    assert found.note == "signal-0-5"


def test_a_card_of_many_classes_fits_a_terminal_and_its_rows_a_record(good, tmp_path) -> None:
    parts = [
        good.assign(numerator=f"signal@np{k:02}=+1", key=good.key + f"-{k}") for k in range(40)
    ]
    card = scorecard(pd.concat([*parts, campaign(3, "<b>bad</b>", 0.3)]), ensemble(5))
    lines = repr(card).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) < 50
    assert "40 of 41 pass" in repr(card)
    assert "<b>bad</b>" not in card._repr_html_()  # names are escaped …
    assert "bad" in card._repr_html_()
    parser = _Tags()
    parser.feed(card._repr_html_())
    assert not parser.open  # … and what is opened is closed
    run = records.start(tmp_path / "run", kind="scorecard", parameters={})
    with run.writer() as writer:
        for row in card.rows():
            writer.append("check", **row)
    rows = run.rows("check")
    assert len(rows) == len(card.checks) + 1
    assert json.loads(rows.to_json(orient="records"))[0]["planned"] == 41 * 60


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_an_ensemble_is_large_enough_or_says_how_many_are_needed() -> None:
    rng = np.random.default_rng(1)
    estimates = 1 + 0.05 * rng.normal(size=(12, 1)) + 0.02 * rng.normal(size=(12, 5))
    *parts, enough = spread_checks(components(estimates), 0.05)
    assert enough.passed
    assert [each.name for each in parts] == ["bootstrap σ", "initialisation σ", "interaction σ"]
    assert all(each.passed is None for each in parts)
    *_, few = spread_checks(components(estimates), 0.005)
    assert not few.passed
    assert "60 members; " in few.note
    assert few.note.endswith("are needed")


def correlated(events: int, seed: int) -> Held:
    """Alike in each feature; the numerator's are correlated, the reference's not."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * events, 2))
    numerator = np.arange(2 * events) < events
    x[numerator, 1] = 0.6 * x[numerator, 0] + 0.8 * x[numerator, 1]
    z = (x[:, 1] - 0.6 * x[:, 0]) / 0.8
    exact = 0.5 * (x[:, 1] ** 2 - z**2) - np.log(0.8)
    return Held(x, numerator, np.ones(len(x)), exact)


def test_a_classifier_sees_what_no_single_feature_shows() -> None:
    held = correlated(6000, 2)
    blind = judge(np.zeros((1, len(held.x))), held)
    assert (blind["closure_p"] > 1e-3).all()
    seen = classifier_two_sample(held, np.zeros(len(held.x)), epochs=8)
    assert seen.pull > 10
    exact = classifier_two_sample(held, held.exact, epochs=8)
    assert abs(exact.pull) < 3.5
    assert exact.effective < seen.effective == pytest.approx(12_000)
    found = ensemble_checks(blind, ("a", "b"), two_sample=seen)
    assert {each.name for each in found if not each.passed} >= {"excess", "c2st"}


def test_two_samples_that_are_alike_scatter_as_their_error_says() -> None:
    """40 tests of small samples: pulls are as wide as a normal distribution, at most."""
    pulls = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        held = Held(rng.normal(size=(800, 2)), np.arange(800) % 2 == 0, np.ones(800))
        pulls.append(
            classifier_two_sample(held, np.zeros(800), hidden=(8,), epochs=3, batch=64).pull
        )
    assert np.square(pulls).sum() < stats.chi2.isf(1e-3, 40)
    assert abs(np.mean(pulls)) < 3.3 / np.sqrt(40)


def test_a_card_is_a_value_of_its_own() -> None:
    check = Check.of("ensemble", "c2st", "signal", 0.7, 0.45, 0.55)
    assert check.passed is False
    assert Check.of("ensemble", "c2st", "signal", float("nan"), 0.45, 0.55).passed is False
    assert isinstance(Scorecard((check,), pd.DataFrame({"key": ["a"]}), 1, 0, Bands()).passed, bool)
    assert TwoSample(0.52, 0.01, 2500).pull == pytest.approx(2)
