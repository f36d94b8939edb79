"""Perceptrons as modules that hold weights, and as pure functions of rows that a block runs.

The functions take weights as arguments, so that one compiled function serves every iteration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Activations by the names that torch.nn and acorn's settings give them.
ACTIVATIONS = ("SiLU", "ReLU", "Tanh", "GELU", "LeakyReLU", "Sigmoid")

#: ("linear",), ("norm", width, affine) or (activation,): what is done to rows, in order.
Steps = tuple[tuple, ...]


def layers(
    widths: Sequence[int],
    *,
    activation: str = "SiLU",
    norm: bool = True,
    affine: bool = True,
    last_activation: str | None = "SiLU",
    last_norm: bool = True,
) -> list[nn.Module]:
    """Linear maps between `widths`, each followed by its norm and activation.

    Parameters
    ----------
    widths
        Of the input and of every layer.
    norm, affine
        LayerNorm after each linear map, with weights of its own or without.
    last_activation, last_norm
        The same for the last layer; without an activation it has no norm either.

    Raises
    ------
    ValueError
        An activation that is not of `ACTIVATIONS`.
    """
    unknown = {activation, last_activation or activation} - set(ACTIVATIONS)
    if unknown:
        raise ValueError(
            f"no activation {', '.join(sorted(unknown))}; there are {', '.join(ACTIVATIONS)}"
        )
    made: list[nn.Module] = []
    for place, (width, out) in enumerate(itertools.pairwise(widths)):
        last = place == len(widths) - 2
        active = last_activation if last else activation
        made.append(nn.Linear(width, out))
        if active is not None:
            if last_norm if last else norm:
                made.append(nn.LayerNorm(out, elementwise_affine=affine))
            made.append(getattr(nn, active)())
    return made


def steps(modules: Sequence[nn.Module]) -> Steps:
    """What `modules` of `layers` do, as a value that `run` follows."""
    return tuple(_step(module) for module in modules)


def _step(module: nn.Module) -> tuple:
    if isinstance(module, nn.Linear):
        return ("linear",)
    if isinstance(module, nn.LayerNorm):
        return ("norm", module.normalized_shape[0], module.elementwise_affine)
    return (type(module).__name__,)


def run(done: Steps, rows: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Follow `done` on rows, taking weights from `parameters` in the order of the modules."""
    rest = iter(parameters)
    for name, *given in done:
        if name == "linear":
            rows = functional.linear(rows, next(rest), next(rest))
        elif name == "norm":
            width, affine = given
            weight, bias = (next(rest), next(rest)) if affine else (None, None)
            rows = functional.layer_norm(rows, (width,), weight, bias)
        else:
            rows = _ACT[name](rows)
    return rows


_ACT: dict[str, Callable[[Tensor], Tensor]] = {
    "SiLU": functional.silu,
    "ReLU": functional.relu,
    "Tanh": torch.tanh,
    "GELU": functional.gelu,
    "LeakyReLU": functional.leaky_relu,
    "Sigmoid": torch.sigmoid,
}


def on_rows(done: Steps, inputs: int, residual: bool, *tensors: Tensor) -> Tensor:
    """A perceptron on `inputs` arrays of rows side by side; `residual` adds the first to it."""
    rows = torch.cat(tensors[:inputs], dim=1) if inputs > 1 else tensors[0]
    found = run(done, rows, tensors[inputs:])
    return tensors[0] + found if residual else found


def on_edges(done: Steps, inputs: int, residual: bool, *tensors: Tensor) -> Tensor:
    """A perceptron on [edge rows, ends], the products with the ends already made.

    Tensors are `inputs` arrays of edge rows, the [B, H] products of both ends with the bias, the
    first weight's columns for edges, and the weights that follow.
    """
    rows = torch.cat(tensors[:inputs], dim=1) if inputs > 1 else tensors[0]
    ends, weight, *rest = tensors[inputs:]
    found = run(done, torch.addmm(ends, rows, weight.T), rest)
    return tensors[0] + found if residual else found
