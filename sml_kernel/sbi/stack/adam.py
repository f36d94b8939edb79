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
    device
        Of the parameters.
    """

    def __init__(self, members: int, size: int, device: torch.device | str = "cpu") -> None:
        self._mean, self._square, self._work = torch.zeros(3, members, size, device=device)
        self._rates, self._steps = torch.zeros(
            2, members, 1, dtype=torch.float64, device=device
        ).unbind()

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
        # m·rate/(√v/scale + ε) with the two numbers of a member below the line: two passes less
        rate = self._rates / (1 - first**self._steps)
        scale = (1 - second**self._steps).sqrt()
        torch.sqrt(self._square, out=self._work)
        below = torch.addcmul(
            (_EPS / rate).float(), self._work, (1 / (rate * scale)).float(), out=self._work
        )
        parameters.addcdiv_(self._mean, below, value=-1)
