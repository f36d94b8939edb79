"""Perceptrons of one shape as one: batched matrix products, all parameters in one array.

A member is a row of the array. Gradients are written out: autograd would do the same products, but
keep its own arrays and add gradients up tensor by tensor. A member's numbers do not depend on who
else is in the stack.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sml_kernel.sbi.stack.activations import ACTIVATIONS, activate_with_slope_, gradient_

#: Weight [M, outputs, inputs] and bias [M, outputs, 1] of each linear map.
Maps = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Perceptron:
    """The shape of every member: linear maps with an activation between them, one logit at the end.

    Attributes
    ----------
    inputs
        D features.
    hidden
        Widths.
    activation
        One of `activations.ACTIVATIONS`.
    """

    inputs: int
    hidden: tuple[int, ...]
    activation: str = "ReLU"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"no activation {self.activation}; there are {', '.join(ACTIVATIONS)}")
        if not self.hidden or min(self.inputs, *self.hidden) < 1:
            raise ValueError(f"{self.inputs} inputs, hidden {self.hidden}: at least one layer of 1")

    @property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each linear map."""
        return tuple(itertools.pairwise((self.inputs, *self.hidden, 1)))

    @property
    def size(self) -> int:
        """P, parameters of a member."""
        return sum(wide * out + out for wide, out in self.maps)

    def views(self, flat: Tensor) -> Maps:
        """[M, P] → weight and bias of each map, no copies."""
        found: Maps = []
        start = 0
        for wide, out in self.maps:
            weight = flat[:, start : start + wide * out].unflatten(1, (out, wide))
            start += wide * out
            found.append((weight, flat[:, start : start + out].unsqueeze(2)))
            start += out
        return found

    def module(self, inputs: int | None = None) -> nn.Sequential:
        """One member in plain torch, [B, D] → [B, 1], initialised by torch's global generator."""
        modules: list[nn.Module] = []
        for place, (wide, out) in enumerate(self.maps):
            modules += [getattr(nn, self.activation)()] if place else []
            modules.append(nn.Linear(inputs if inputs and not place else wide, out))
        return nn.Sequential(*modules)


def initial(shape: Perceptron, seed: int, features: Sequence[int] | None = None) -> Tensor:
    """[P] parameters of ``torch.manual_seed(seed)`` and torch.nn's own initialisation.

    Parameters
    ----------
    features
        That the member sees; the weights of others are 0. The network is initialised as one with
        only these inputs. None: all.
    """
    with torch.random.fork_rng(devices=[]):
        # what torch.manual_seed does on a CPU, without its 2 ms of notes for GPUs not yet in use
        torch.default_generator.manual_seed(seed)
        module = shape.module(None if features is None else len(features))
    return flattened(shape, module, features)


def flattened(
    shape: Perceptron, module: nn.Sequential, features: Sequence[int] | None = None
) -> Tensor:
    """[P] parameters of a network of `Perceptron.module`."""
    flat = torch.zeros(1, shape.size)
    linear = [each for each in module if isinstance(each, nn.Linear)]
    with torch.no_grad():
        for place, (weight, bias) in enumerate(shape.views(flat)):
            columns = slice(None) if place or features is None else list(features)
            weight[0][:, columns] = linear[place].weight
            bias[0, :, 0] = linear[place].bias
    return flat[0]


def network(
    shape: Perceptron, flat: Tensor, features: Sequence[int] | None = None
) -> nn.Sequential:
    """A member as plain torch network of the features that it sees; of [P] parameters."""
    with torch.random.fork_rng(devices=[]):
        module = shape.module(None if features is None else len(features))
    linear = [each for each in module if isinstance(each, nn.Linear)]
    with torch.no_grad():
        for place, (weight, bias) in enumerate(shape.views(flat.unsqueeze(0))):
            columns = slice(None) if place or features is None else list(features)
            linear[place].weight.copy_(weight[0][:, columns])
            linear[place].bias.copy_(bias[0, :, 0])
    return module


class Workspace:
    """Arrays of a pass of M members over batches of B events, used again at every step.

    Events are the last axis: products and activations then read and write long rows, and cost half
    of what they do with [M, B, width] (4 → 2x16 → 1, batch 128).

    Parameters
    ----------
    shape, members, batch
        P, M and B.
    device
        Of the parameters.
    """

    def __init__(
        self, shape: Perceptron, members: int, batch: int, device: torch.device | str = "cpu"
    ) -> None:
        def empty(*sizes: int) -> Tensor:
            return torch.empty(members, *sizes, device=device)

        self._shape = shape
        self._seen = [empty(width, batch) for width in shape.hidden]
        self._slopes = [empty(width, batch) for width in shape.hidden]
        self._logits = empty(1, batch)
        self._weights = [empty(out, wide) for wide, out in shape.maps]

    def logits(self, maps: Maps, x: Tensor) -> Tensor:
        """`Perceptron.views` of parameters, [M, D, B] features → [M, B]."""
        *hidden, (weight, bias) = maps
        for (matrix, shift), seen, slope in zip(hidden, self._seen, self._slopes, strict=True):
            torch.baddbmm(shift, matrix, x, out=seen)
            x = activate_with_slope_(self._shape.activation, seen, slope)
        return torch.baddbmm(bias, weight, x, out=self._logits).squeeze(1)

    def gradient(self, maps: Maps, x: Tensor, arriving: Tensor, into: Maps) -> None:
        """Write the gradient of parameters after `logits` of the same parameters and features.

        Parameters
        ----------
        arriving
            [M, B] gradient of logits.
        into
            Views of the gradient.
        """
        arriving = arriving.unsqueeze(1)
        for place in reversed(range(len(maps))):
            seen = self._seen[place - 1] if place else x
            weight, bias = into[place]
            weight.copy_(torch.bmm(arriving, seen.mT, out=self._weights[place]))
            torch.sum(arriving, 2, keepdim=True, out=bias)
            if place:  # what was seen is not needed again
                slope, activation = self._slopes[place - 1], self._shape.activation
                arriving = gradient_(activation, arriving, maps[place][0], seen, slope)
