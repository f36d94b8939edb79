"""Activations of a stack on a GPU, in place, are torch's."""

from __future__ import annotations

import pytest
import torch

from sml_kernel.sbi.stack.activations import activate_, activate_with_slope_, gradient_


@pytest.mark.parametrize("activation", ["SiLU", "ReLU"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_values_and_gradients_are_those_of_autograd(activation: str, outputs: int) -> None:
    before = torch.linspace(-100, 100, 2 * 4 * 1001).view(2, 4, 1001).flip(2)
    weight, arriving = torch.randn(2, outputs, 4), torch.randn(2, outputs, 1001)
    exact = before.double().requires_grad_()
    after = getattr(torch.nn.functional, activation.lower())(exact)
    (weight.double() @ after).backward(arriving.double())
    seen, slope = before.clone(), torch.empty_like(before)
    activate_with_slope_(activation, seen, slope)
    for values in (seen, activate_(activation, before.clone())):
        torch.testing.assert_close(values.double(), after.detach(), rtol=3e-6, atol=1e-7)
    found = gradient_(activation, arriving, weight, seen, slope)
    torch.testing.assert_close(found.double(), exact.grad, rtol=1e-5, atol=1e-5)
