"""Losses with the joint ratio find the ratio of x alone, from fewer events than the classes do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sml_kernel.sbi.stack import losses
from sml_kernel.sbi.stack.batches import sample
from sml_kernel.sbi.stack.evaluation import logits
from sml_kernel.sbi.stack.members import Member, Recipe
from sml_kernel.sbi.stack.training import train

SHIFT, NOISE = 1.0, 0.2  # z ~ N(0 or SHIFT, 1), x = z + N(0, NOISE²): p(x) is exact
RECIPE = Recipe(hidden=(16, 16), batch=50, epochs=60, patience=5)


def latent(n: int, seed: int):
    random = np.random.default_rng(seed)
    classes = np.arange(n) % 2
    z = random.normal(size=n) + SHIFT * classes
    x = (z + NOISE * random.normal(size=n))[:, None]
    ids = np.arange(n) + (seed << 32)
    return sample(x, classes, ids=ids, joint_log_ratio=SHIFT * z - SHIFT**2 / 2)


def error(loss: str) -> float:
    """Root mean square of the log ratio's error, over 4 sets of 1,000 events and most of x."""
    recipe, x = replace(RECIPE, loss=loss), torch.linspace(-1.5, 2, 101)[:, None]
    exact = (SHIFT * x[:, 0] - SHIFT**2 / 2) / (1 + NOISE**2)
    squares = []
    for seed in range(4):
        events = latent(1000, 2 * seed + 1), latent(1000, 2 * seed + 2)
        done = list(train([Member(seed, 3e-3), Member(seed + 4, 3e-3)], *events, recipe))
        found = logits(done[0].shape, torch.stack([each.parameters for each in done]), x)
        squares.append((found - exact).square().mean())
    return float(torch.stack(squares).mean().sqrt())


def test_joint_ratios_give_the_exact_ratio_with_a_smaller_error() -> None:
    # Of 1,000 events classes tell the slope and the offset of ln r to some 2√(2/1000) = .09. The
    # targets s(x,z) and r(x,z) scatter only with z at given x: NOISE/√(1 + NOISE²) of ln r, not 2.
    of = {loss: error(loss) for loss in losses.LOSSES}
    assert 0.03 < of["bce"] < 0.18
    assert of["alice"] < 0.03
    assert of["rolr"] < of["bce"]


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_gradients_are_those_of_autograd(loss: str) -> None:
    joint = torch.linspace(-3, 3, 50, dtype=torch.float64)
    targets = losses.targets(loss, torch.arange(50) % 2 == 1, joint)
    at = torch.linspace(2, -2, 50).requires_grad_()
    losses.values(loss, at, targets).sum().backward()
    torch.testing.assert_close(losses.gradient_(loss, at.detach().clone(), targets), at.grad)


def test_ratios_that_are_not_there_or_of_other_classes_are_refused() -> None:
    events = latent(400, 1)
    alice = replace(RECIPE, loss="alice")
    with pytest.raises(ValueError, match="needs the joint ratio"):
        list(train([Member(0)], replace(events, joint_log_ratio=None), events, alice))
    with pytest.raises(ValueError, match="one pair of classes"):
        list(train([Member(0), Member(1, classes=(0, 1))], events, events, alice))
    with pytest.raises(ValueError, match="no loss mse"):
        Recipe(loss="mse")
