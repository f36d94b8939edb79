"""Bootstrap weights: Poisson(1), independent, and a function of names alone."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from sml_kernel.sbi.stack.bootstrap import _poisson, philox, poisson_weights

# The answers that the authors of Philox publish with Random123.
KNOWN = [
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    """[40 replicas, 50,000 events]"""
    return poisson_weights(7, range(40), np.arange(50_000))


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_generator_gives_the_published_words(counter, key: int, words: str) -> None:
    assert " ".join(f"{int(word):08x}" for word in philox(counter, key)) == words


def test_counts_have_the_probabilities_of_poisson(weights: np.ndarray) -> None:
    draws = weights.size
    assert abs(weights.mean() - 1) < 4 / math.sqrt(draws)
    assert abs(weights.var() - 1) < 4 * math.sqrt(3 / draws)  # Var of the sample variance: 3/n
    counts = np.bincount(weights.ravel(), minlength=8)
    counts = np.append(counts[:7], counts[7:].sum())
    expected = stats.poisson.pmf(np.arange(7), 1) * draws
    expected = np.append(expected, draws - expected.sum())
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_the_tail_is_there_and_no_heavier() -> None:
    words = np.uint64(2**32) - np.arange(1, 6, dtype=np.uint64)
    # P(at least 12) is 3.6 words of 2**32, P(at least 13) a quarter of one
    assert stats.poisson.sf(11, 1) * 2**32 == pytest.approx(3.57, abs=0.01)
    assert _poisson(words).tolist() == [12, 12, 12, 12, 11]


def test_replicas_events_and_campaigns_are_independent(weights: np.ndarray) -> None:
    replicas, events = weights.shape
    between = np.corrcoef(weights)[np.triu_indices(replicas, 1)]
    pulls = between * math.sqrt(events)
    assert stats.kstest(pulls, "norm").pvalue > 1e-3  # also the four of one block
    assert np.abs(pulls).max() < 5
    neighbours = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in weights.astype(float)]
    assert np.abs(neighbours).max() * math.sqrt(events) < 4.5
    totals = weights.sum(axis=0)  # of an event over replicas: Poisson(40) if they are independent
    assert totals.var() / replicas == pytest.approx(1, abs=4 * math.sqrt(2.1 / events))
    joint = np.histogram2d(weights[4].clip(max=3), weights[5].clip(max=3), bins=4)[0]
    assert stats.chi2_contingency(joint).pvalue > 1e-3
    other = poisson_weights(8, [4], np.arange(events))[0]
    assert abs(np.corrcoef(weights[4], other)[0, 1]) * math.sqrt(events) < 4


def test_a_weight_depends_on_names_alone(weights: np.ndarray) -> None:
    random = np.random.default_rng(0)
    events = random.permutation(50_000)[:9000]
    asked = poisson_weights(7, [31, 2, 2, 17], events)
    assert (asked == weights[np.ix_([31, 2, 2, 17], events)]).all()
    near = np.arange(100)  # all bits of a name count
    assert (poisson_weights(7, [2**40], near)[0] != weights[0, :100]).any()
    assert (poisson_weights(7, [0], near + 2**40)[0] != weights[0, :100]).any()
    assert (poisson_weights(7 + 2**40, [0], near)[0] != weights[0, :100]).any()
    code = (
        "import numpy as np; from sml_kernel.sbi.stack.bootstrap import poisson_weights;"
        "print(poisson_weights(7, [3], np.arange(40)).tolist()[0])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(weights[3, :40].tolist())


def test_the_weights_stay_what_they_are() -> None:
    """A change would change every campaign that is half done."""
    events = np.array([0, 1, 2**32, 2**63 - 1])
    assert poisson_weights(2026, [0, 5], events).tolist() == PINNED


PINNED = [[1, 4, 1, 1], [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("campaign", "replicas", "events", "said"),
    [
        (-1, [0], [0], "campaign -1"),
        (0, [2**64], [0], "replica"),
        (0, [0], [-3], "event -3"),
        (0, [0], [0.5], "integers"),
    ],
)
def test_what_is_no_name_is_refused(campaign, replicas, events, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        poisson_weights(campaign, replicas, np.array(events))
