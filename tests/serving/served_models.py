"""Models that a server makes for the tests: honest ones, and ones that go wrong in it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sml_kernel.serving import Servable


def twice(x: Tensor) -> Tensor:
    """[n, 3] to [n, 3]; nan in the first column raises."""
    if torch.isnan(x[:, 0]).any():
        raise ValueError("nan in column 0")
    return 2 * x


def honest(*_: object) -> Callable[[Tensor], Tensor]:
    return twice


def slow(x: Tensor) -> Tensor:
    """[n, 3] to [n, 3], 5 ms a row."""
    time.sleep(0.005 * len(x))
    return 2 * x


def sleeping(*_: object) -> Callable[[Tensor], Tensor]:
    return slow


def failing(*_: object) -> Callable[[Tensor], Tensor]:
    raise RuntimeError("this one never loads")


def servable(
    name: str, builder: str, call: Callable[[Tensor], Tensor] = twice, run: str = ""
) -> Servable:
    """A model that takes [n, 3] float32, built in the server by a function of this module."""
    example = (np.zeros((1, 3), np.float32),)
    return Servable(name, call, example, f"{__name__}:{builder}", {}, {}, run=run)
