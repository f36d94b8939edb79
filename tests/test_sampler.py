"""Batches and shares: every graph once, the same for any number of ranks, even in edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_kernel.tracking.sampler import batches, deal, imbalance, random_batches, steps_an_epoch

SIZES = st.lists(st.integers(0, 10**7), min_size=1, max_size=70)


@given(SIZES, st.integers(1, 20), st.integers(0, 99), st.integers(0, 99))
def test_an_epoch_takes_every_graph_once_in_full_batches_but_one(edges, batch, seed, epoch) -> None:
    for drawn in (
        batches(edges, batch, seed, epoch),
        random_batches(len(edges), batch, seed, epoch),
    ):
        assert sorted(number for numbers in drawn for number in numbers) == list(range(len(edges)))
        assert len(drawn) == steps_an_epoch(len(edges), batch)
        assert sum(len(numbers) != batch for numbers in drawn) <= 1
    assert batches(edges, batch, seed, epoch) == batches(edges, batch, seed, epoch)


@given(SIZES, st.integers(1, 9))
@settings(max_examples=60)
def test_shares_hold_every_graph_once_and_no_exchange_would_even_them_out(edges, ranks) -> None:
    shares = deal(range(len(edges)), edges, ranks)
    assert sorted(number for share in shares for number in share) == list(range(len(edges)))
    assert deal(range(len(edges))[::-1], edges, ranks) == shares  # whatever the order they come in
    loads = [sum(edges[number] for number in share) for share in shares]
    most = int(np.argmax(loads))
    for to in set(range(ranks)) - {most}:
        for gives, back in itertools.product(shares[most], [None, *shares[to]]):
            change = edges[gives] - (0 if back is None else edges[back])
            assert max(loads[most] - change, loads[to] + change) >= max(loads)


def test_exchanges_even_out_what_largest_first_does_not() -> None:
    edges = [9, 8, 7, 6, 5]  # largest first: 9 + 6 + 5 and 8 + 7
    shares = deal(range(5), edges, 2)
    assert sorted(sum(edges[number] for number in share) for share in shares) == [17, 18]


@pytest.mark.parametrize("batch", [2, 4, 16])
def test_another_epoch_has_other_batches_not_only_another_order(batch: int) -> None:
    edges = natural(96)
    seen = {frozenset(map(frozenset, batches(edges, batch, 0, epoch))) for epoch in range(10)}
    assert len(seen) == 10
    assert batches(edges, batch, 0, 0) != batches(edges, batch, 1, 0)


@pytest.mark.parametrize(
    ("graphs", "batch", "ranks"),
    [(100, 4, 2), (100, 4, 4), (96, 8, 2), (100, 8, 4), (100, 16, 2), (100, 16, 4), (1000, 4, 4)],
)
def test_natural_spreads_are_even_to_two_per_cent(graphs: int, batch: int, ranks: int) -> None:
    edges = natural(graphs)
    even = measured(edges, [numbers for e in range(5) for numbers in batches(edges, batch, 0, e)])
    assert even(ranks)[0] < 0.02
    dealt = np.array(
        [
            [sum(edges[numbers[rank::ranks]]) for rank in range(ranks)]
            for epoch in range(5)
            for numbers in random_batches(graphs, batch, 0, epoch)
        ]
    )
    assert imbalance(dealt)[0] > 3 * even(ranks)[0]


def test_pile_up_from_0_to_200_is_even_to_two_per_cent_with_four_graphs_a_rank() -> None:
    random = np.random.default_rng(0)
    pileup = random.uniform(0, 200, 400)
    edges = ((1500 + 350 * pileup) ** 1.3 * random.lognormal(0, 0.1, 400)).astype(int)
    drawn = [numbers for epoch in range(5) for numbers in batches(edges, 16, 0, epoch)]
    assert measured(edges, drawn)(4)[0] < 0.005
    assert measured(edges, [n for e in range(5) for n in batches(edges, 8, 0, e)])(4)[0] < 0.02


def natural(graphs: int) -> np.ndarray:
    """Edges of graphs of one pile-up: they spread by 20 %."""
    return np.random.default_rng(1).normal(1e5, 2e4, graphs).clip(1e4).astype(int)


def measured(edges: np.ndarray, drawn: list[list[int]]):
    def shares(ranks: int) -> tuple[float, float]:
        return imbalance(
            np.array(
                [
                    [edges[share].sum() if share else 0 for share in deal(numbers, edges, ranks)]
                    for numbers in drawn
                ]
            )
        )

    return shares
