"""Adam for a stack: one state, a learning rate and a number of steps for each member."""

from __future__ import annotations

import torch
from torch import Tensor

_BETAS, _EPS = (0.9, 0.999), 1e-8  # of torch.optim.Adam


class Adam:
    """What torch.optim.Adam does, for parameters [M, P] of which each row is a network.

    Parameters
    ----------
    members, size
        M and P.
    """

    def __init__(self, members: int, size: int) -> None:
        self._mean = torch.zeros(members, size)
        self._square = torch.zeros(members, size)
        self._work = torch.empty(members, size)
        self._rates = torch.zeros(members, 1, dtype=torch.float64)
        self._steps = torch.zeros(members, 1, dtype=torch.float64)

    def begin(self, place: int, learning_rate: float) -> None:
        """Forget what was at `place`: a new network begins there."""
        for state in (self._mean, self._square, self._steps):
            state[place] = 0
        self._rates[place] = learning_rate

    def keep(self, places: list[int]) -> None:
        """Go on with these members alone, in this order."""
        self._mean, self._square = self._mean[places], self._square[places]
        self._rates, self._steps = self._rates[places], self._steps[places]
        self._work = torch.empty_like(self._mean)

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Move [M, P] parameters by their gradient, which is used up."""
        self._steps += 1
        first, second = _BETAS
        self._mean.lerp_(gradient, 1 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        rate = (self._rates / (1 - first**self._steps)).float()
        scale = (1 - second**self._steps).sqrt().float()
        torch.sqrt(self._square, out=self._work).div_(scale).add_(_EPS)
        parameters.addcdiv_(torch.mul(self._mean, rate, out=gradient), self._work, value=-1)
