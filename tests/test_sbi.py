"""A problem with an exact answer through a stack of networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sml_kernel import sbi


def test_networks_of_a_stack_find_the_exact_ratio() -> None:
    """Replicas of one problem, each of its own fluctuation, about the logit that is known."""
    problem = sbi.draw(sbi.GaussianShift(1.0, dimensions=2), events=6000, seed=1)
    held_out = problem.event_ids % 4 == 0
    training, validation = (
        sbi.sample(
            problem.features[rows],
            problem.labels[rows],
            problem.weights[rows],
            ids=problem.event_ids[rows],
        )
        for rows in (~held_out, held_out)
    )
    recipe = sbi.Recipe(hidden=(16,), batch=256, epochs=12, patience=12)
    members = [sbi.Member(k, learning_rate=5e-3, replica=k, classes=(0, 1)) for k in range(6)]
    trained = list(sbi.train(members, training, validation, recipe))
    assert sorted(each.member.seed for each in trained) == list(range(6))
    x = problem.features[held_out]
    with torch.no_grad():
        logits = np.stack([each.network()(torch.tensor(x))[:, 0].numpy() for each in trained])
    exact = sbi.log_ratio(problem.exact, x, "shifted", "reference")
    assert np.abs(logits.mean(axis=0) - exact).mean() < 0.08
    assert 0.005 < logits.std(axis=0).mean() < 0.2  # replicas differ, by little
    assert min(min(each.losses) for each in trained) == pytest.approx(0.5817, abs=0.02)
