"""Gradients of perceptrons on a block of rows, written out.

Autograd would do the same products. Written out, the last activation is not made again, as its
result is not needed; gradients of weights are added up where they lie; and those of rows go where
they belong, with the residual's in the same product: a training step takes a tenth less time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sml_kernel.tracking.perceptron import Steps

_LAYER_NORM_EPS = 1e-5  # of torch.nn.LayerNorm, which no form sets
_ACTIVATIONS = ("SiLU", "ReLU")


def written_out(done: Steps) -> bool:
    """Whether the gradient of these steps is known here."""
    return all(name in ("linear", "norm", *_ACTIVATIONS) for name, *_ in done)


def of_block(
    done: Steps,
    rows: Sequence[Tensor],
    ends: Tensor | None,
    parameters: Sequence[Tensor],
    arriving: Tensor,
    residual: bool,
    into: Sequence[Tensor | None],
    into_ends: Tensor | None,
    sums: Sequence[Tensor],
) -> None:
    """Gradients of one block of `perceptron.on_rows`, or of `on_edges` where there are ends.

    Parameters
    ----------
    done
        What follows the first product with edge rows and ends; with no ends all of it.
    rows
        [B, ·] arrays side by side.
    ends
        [B, H] products of both ends.
    parameters
        As these functions take them.
    arriving
        [B, ·] gradient of the result.
    residual
        The result was added to the first of `rows`.
    into, into_ends
        Where gradients of rows and ends go; None: not wanted.
    sums
        Like `parameters`: their gradients are added to it.
    """
    row = rows[0] if len(rows) == 1 else torch.cat(list(rows), dim=1)
    first = parameters[0]
    if ends is None:  # the first map is one of the steps, and has its own bias
        begun, done = functional.linear(row, first, parameters[1]), done[1:]
        rest, of_rest = parameters[2:], sums[2:]
    else:
        begun = torch.addmm(ends, row, first.T)
        rest, of_rest = parameters[1:], sums[1:]
    gradient = _returned(done, _followed(done, begun, rest), rest, arriving, of_rest)
    sums[0].addmm_(gradient.T, row)
    if ends is None:
        sums[1].add_(gradient.sum(0))
    if into_ends is not None:
        into_ends.copy_(gradient)
    if len(rows) == 1 and into[0] is not None:
        if residual:
            torch.addmm(arriving, gradient, first, out=into[0])
        else:
            torch.mm(gradient, first, out=into[0])
        return
    if any(each is not None for each in into):
        parts = (gradient @ first).split([each.shape[1] for each in rows], dim=1)
        for place, (each, part) in enumerate(zip(into, parts, strict=True)):
            if each is not None:
                each.copy_(part + arriving if residual and place == 0 else part)


def _followed(done: Steps, rows: Tensor, parameters: Sequence[Tensor]) -> list[Any]:
    """What each step saw, for the way back; the last activation's result is not made."""
    rest = iter(parameters)
    saved: list[Any] = []
    for place, (name, *given) in enumerate(done):
        last = place == len(done) - 1
        if name == "linear":
            saved.append(rows)
            weight, bias = next(rest), next(rest)
            rows = rows if last else functional.linear(rows, weight, bias)
        elif name == "norm":
            width, affine = given
            scale, shift = (next(rest), next(rest)) if affine else (None, None)
            out, mean, rstd = torch.native_layer_norm(rows, [width], scale, shift, _LAYER_NORM_EPS)
            saved.append((rows, mean, rstd))
            rows = out
        else:
            saved.append(rows)
            rows = rows if last else getattr(functional, name.lower())(rows)
    return saved


def _returned(
    done: Steps,
    saved: list[Any],
    parameters: Sequence[Tensor],
    gradient: Tensor,
    sums: Sequence[Tensor],
) -> Tensor:
    """The gradient of what the steps began with."""
    place = len(parameters)
    for number in reversed(range(len(done))):
        (name, *given), seen = done[number], saved[number]
        if name == "linear":
            place -= 2
            sums[place].addmm_(gradient.T, seen)
            sums[place + 1].add_(gradient.sum(0))
            gradient = gradient @ parameters[place]
        elif name == "norm":
            width, affine = given
            place -= 2 if affine else 0
            pair = parameters[place : place + 2] if affine else (None, None)
            gradient, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
                gradient, seen[0], [width], *seen[1:], *pair, [True, affine, affine]
            )
            if affine:
                sums[place].add_(of_weight)
                sums[place + 1].add_(of_bias)
        elif name == "SiLU":
            gradient = torch.ops.aten.silu_backward(gradient, seen)
        else:
            gradient = torch.ops.aten.threshold_backward(gradient, seen, 0)
    return gradient
