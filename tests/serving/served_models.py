"""Models that a server makes for the tests: honest ones, and ones that go wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sml_kernel.serving import Servable


def twice(x: Tensor) -> Tensor:
    """[n, 3] to [n, 3]; nan in the first column raises."""
    if torch.isnan(x[:, 0]).any():
        raise ValueError("nan in column 0")
    return 2 * x


def _repeating(x: Tensor) -> Tensor:
    """What a stub under NumPy 2 makes of an array: its first element again and again."""
    return (2 * x).flatten()[:1].expand(x.numel()).reshape(x.shape).clone()


def honest(*_: object) -> Callable[[Tensor], Tensor]:
    return twice


def corrupting(*_: object) -> Callable[[Tensor], Tensor]:
    return _repeating


def failing(*_: object) -> Callable[[Tensor], Tensor]:
    raise RuntimeError("this one never loads")


def numpy_version(x: Tensor) -> Tensor:
    """[n, 2]: major and minor version of the NumPy of the process, of each row."""
    version = [float(each) for each in np.__version__.split(".")[:2]]
    return torch.tensor([version] * len(x))


def versions(_: Mapping[str, object], __: Mapping[str, Tensor], ___: Path) -> Callable:
    return numpy_version


def servable(
    name: str, builder: str, call: Callable[[Tensor], Tensor] = twice, run: str = ""
) -> Servable:
    """A model that takes [n, 3] float32, built in the server by a function of this module."""
    example = (np.zeros((1, 3), np.float32),)
    return Servable(name, call, example, f"{__name__}:{builder}", {}, {}, run=run)
