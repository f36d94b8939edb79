"""A stack gives each member what plain torch gives it alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sml_kernel.sbi.stack import training
from sml_kernel.sbi.stack.batches import sample
from sml_kernel.sbi.stack.bootstrap import poisson_weights
from sml_kernel.sbi.stack.members import Member, Recipe
from sml_kernel.sbi.stack.training import train

CAMPAIGN = 11
D = 5


def events(n: int, seed: int, shift: float = 0.5):
    """Three classes in D dimensions, each farther out; weights of which some are negative."""
    random = np.random.default_rng(seed)
    classes = random.choice(3, n, p=[0.5, 0.3, 0.2])
    x = random.normal(size=(n, D)) + shift * classes[:, None] * np.linspace(0.2, 1, D)
    weights = random.uniform(0.5, 2, n) * np.where(random.random(n) < 0.05, -1, 1)
    return x, classes, weights, np.arange(n) + 1_000_000 * seed


TRAINING, VALIDATION = events(1200, 1), events(500, 2)
RECIPE = Recipe(hidden=(16, 12), batch=64, epochs=12, patience=12)


@pytest.fixture(params=["cpu", "gpu"], autouse=True)
def way(request, monkeypatch):
    """Both ways in which members train; that of a GPU, which runs on a CPU too."""
    if request.param == "gpu":
        monkeypatch.setattr(training.alone, "train", training.together.train)


def stacked(members, recipe=RECIPE, **how):
    x, v = (sample(*each[:3], ids=each[3]) for each in (TRAINING, VALIDATION))
    done = list(train(members, x, v, recipe, campaign=CAMPAIGN, **how))
    assert len(done) == len(members)
    return {each.member: each for each in done}


def alone(member: Member, recipe: Recipe):
    """The same in plain torch; weights of the best epoch, its number, losses and steps."""
    (x, y, w), (vx, vy, vw) = (_share(each, member) for each in (TRAINING, VALIDATION))
    widths = [x.shape[1], *recipe.hidden, 1]
    torch.manual_seed(member.seed)
    layers: list[nn.Module] = []
    for wide, out in itertools.pairwise(widths):
        layers += [nn.Linear(wide, out), getattr(nn, recipe.activation)()]
    net = nn.Sequential(*layers[:-1])
    adam = torch.optim.Adam(net.parameters(), member.learning_rate)
    order = torch.Generator().manual_seed(member.seed)
    best, best_epoch, losses, steps = None, 0, [], 0
    for epoch in range(1, recipe.epochs + 1):
        for rows in torch.randperm(len(x), generator=order).split(recipe.batch):
            if len(rows) < recipe.batch:
                continue
            adam.zero_grad()
            logits = net(x[rows]).squeeze(1)
            functional.binary_cross_entropy_with_logits(logits, y[rows], w[rows]).backward()
            adam.step()
            steps += 1
        with torch.no_grad():
            loss = functional.binary_cross_entropy_with_logits(net(vx).squeeze(1), vy, vw).item()
        if loss < min(losses, default=np.inf):
            best_epoch = epoch
            best = [each.detach().clone() for each in net.parameters()]
        losses.append(loss)
        if epoch - best_epoch >= recipe.patience:
            break
    return best, best_epoch, losses, steps


def _share(given, member: Member):
    x, classes, weights, ids = given
    if member.replica is not None:
        weights = weights * poisson_weights(CAMPAIGN, [member.replica], ids)[0]
    numerator, reference = member.classes
    used = (classes == numerator) | (classes == reference)
    x, y, w = x[used], (classes == numerator)[used], weights[used]
    w = w * len(w) / 2 / np.where(y, w[y].sum(), w[~y].sum())
    columns = list(member.features or range(D))
    return [torch.tensor(each, dtype=torch.float32) for each in (x[:, columns], y, w)]


def check(members, recipe: Recipe, **how) -> dict:
    found = stacked(members, recipe, **how)
    for member in members:
        best, best_epoch, losses, steps = alone(member, recipe)
        ours = found[member]
        assert ours.failure is None
        assert ours.losses == pytest.approx(losses, rel=2e-4)
        assert ours.best_epoch == best_epoch
        for one, other in zip(ours.network().parameters(), best, strict=True):
            torch.testing.assert_close(one.detach(), other, rtol=1e-4, atol=1e-4)
        found[member] = (ours, steps)
    return found


@pytest.mark.parametrize("activation", ["SiLU", "ReLU"])
def test_after_200_steps_weights_are_those_of_plain_torch(activation: str) -> None:
    members = [Member(seed, 10 ** -(3 + seed / 8)) for seed in range(5)]
    recipe = replace(RECIPE, activation=activation, epochs=16, patience=16)
    found = check(members, recipe)
    assert all(steps >= 200 for _, steps in found.values())
    assert any(ours.best_epoch == 16 for ours, _ in found.values())  # compared after all steps


def test_members_that_differ_in_everything_stop_when_they_would_alone() -> None:
    members = [
        Member(1, 0.02),
        Member(1, 0.001, replica=3),
        Member(2, 0.02, replica=3),
        Member(3, 0.01, classes=(2, 0)),
        Member(4, 0.02, classes=(2, 1), replica=4),
        Member(5, 0.005, features=(0, 2, 4)),
        Member(6, 0.01, replica=9, features=(4,)),
    ]
    found = check(members, replace(RECIPE, epochs=30, patience=2), at_once=4)
    epochs = {len(ours.losses) for ours, _ in found.values()}
    assert len(epochs) >= 4  # they leave at different times, and three take a place that was left
    network = found[members[5]][0].network()
    assert network(torch.zeros(2, 3)).shape == (2, 1)


def test_a_member_has_the_same_bits_in_any_company() -> None:
    members = [Member(seed, 0.003 * (1 + seed % 5), replica=seed) for seed in range(9)]
    recipe = replace(RECIPE, patience=2)
    together, few = stacked(members, recipe), stacked(members[::-1], recipe, at_once=4)
    (one,) = stacked(members[4:5], recipe).values()
    assert len({len(each.losses) for each in together.values()}) > 1
    for member in members:
        assert together[member].losses == few[member].losses
        assert torch.equal(together[member].parameters, few[member].parameters)
    assert torch.equal(one.parameters, together[one.member].parameters)


def test_one_that_diverges_or_has_nothing_to_learn_takes_no_other_down() -> None:
    good, wild = Member(0, 0.003), Member(1, 1e30)
    found = stacked([wild, good])
    assert found[good].parameters.equal(stacked([good])[good].parameters)
    assert "diverged" in found[wild].failure
    assert found[wild].parameters.isnan().all()
    with pytest.raises(ValueError, match="diverged"):
        found[wild].network()
    x, classes, weights, ids = TRAINING
    unlearnable = sample(x, classes, np.where(classes == 2, -1, weights), ids=ids)
    validation = sample(*VALIDATION[:3], ids=VALIDATION[3])
    members = [Member(0), Member(0, classes=(2, 0))]
    done = {each.member: each for each in train(members, unlearnable, validation, RECIPE)}
    assert "class 2 has a total weight of -" in done[members[1]].failure
    assert done[members[0]].failure is None


@pytest.mark.parametrize(
    ("member", "recipe", "said"),
    [
        (Member(0, features=(0, 5)), RECIPE, "features are some of 0..4"),
        (Member(0, classes=(3, 0)), RECIPE, "class 3 has no events"),
        (Member(0), replace(RECIPE, batch=5000), "less than a batch"),
        (Member(0), replace(RECIPE, activation="Tanh"), "no activation Tanh"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(member, recipe, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stacked([member], recipe)


def test_a_sample_that_is_not_finite_names_the_row() -> None:
    x, classes, weights, ids = events(20, 3)
    x[7, 2] = np.nan
    with pytest.raises(ValueError, match="features are not finite, first in row 7"):
        sample(x, classes, weights, ids=ids)
