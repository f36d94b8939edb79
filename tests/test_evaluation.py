"""Many networks evaluated at once say what each says in plain torch."""

from __future__ import annotations

import math

import pytest
import torch

from sml_kernel.sbi.stack import evaluation
from sml_kernel.sbi.stack.members import Member, Trained
from sml_kernel.sbi.stack.perceptrons import Perceptron, initial


@pytest.mark.parametrize("shape", [Perceptron(3, (16, 12)), Perceptron(1, (8,), "ReLU")])
@pytest.mark.parametrize("way", ["logits", "_stacked"])  # of a CPU, of a GPU
def test_logits_are_those_of_the_networks(way: str, shape: Perceptron, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "_LAYER_BYTES", 20_000)  # blocks of members, and one left over
    monkeypatch.setattr(evaluation, "_EVENTS", 100)
    members = [Member(seed, features=(0,) if seed == 2 else None) for seed in range(7)]
    parameters = torch.stack([initial(shape, each.seed, each.features) for each in members])
    x = torch.randn(1050, shape.inputs, generator=torch.Generator().manual_seed(1))
    found = getattr(evaluation, way)(shape, parameters, x)
    for member, row, logits in zip(members, parameters, found, strict=True):
        network = Trained(member, shape, row, 1, (0.5,)).network()
        seen = x[:, list(member.features or range(shape.inputs))]
        torch.testing.assert_close(logits, network(seen).detach().squeeze(1), rtol=1e-5, atol=1e-6)


def test_a_failed_member_gives_nan_and_no_events_give_none() -> None:
    shape = Perceptron(2, (4,))
    parameters = torch.stack([initial(shape, 0), torch.full((shape.size,), math.nan)])
    found = evaluation.logits(shape, parameters, torch.zeros(5, 2))
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
    assert evaluation.logits(shape, parameters, torch.zeros(0, 2)).shape == (2, 0)


def test_what_does_not_fit_is_refused() -> None:
    shape = Perceptron(2, (4,))
    with pytest.raises(ValueError, match=r"\[M, 17\] parameters"):
        evaluation.logits(shape, torch.zeros(3, 16), torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"features are \[N, 2\]"):
        evaluation.logits(shape, torch.zeros(3, 17), torch.zeros(5, 3))
