"""Activations in place are torch's, with and without compiled kernels."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from sml_kernel.sbi.stack import kernels
from sml_kernel.sbi.stack.activations import activate_, activate_with_slope_, gradient_


@pytest.fixture(params=["compiled", "torch"])
def kind(request, monkeypatch):
    threads = torch.get_num_threads()
    if request.param == "torch":
        monkeypatch.setattr(kernels, "compiled_for", lambda values: False)
    elif importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    else:
        torch.set_num_threads(1)
        assert kernels.compiled_for(torch.zeros(1))
    yield request.param
    torch.set_num_threads(threads)


@pytest.mark.parametrize("activation", ["SiLU", "ReLU"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_values_and_gradients_are_those_of_autograd(kind: str, activation, outputs: int) -> None:
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


def test_what_is_no_number_stays_none(kind: str) -> None:
    values = torch.full((9,), torch.nan)
    assert activate_("SiLU", values.clone()).isnan().all()
    assert activate_("ReLU", values.clone()).isnan().all()
