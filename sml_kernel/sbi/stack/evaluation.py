"""What trained members say of events: logits of many networks for many events."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sml_kernel.sbi.stack.activations import activate_
from sml_kernel.sbi.stack.perceptrons import Perceptron

#: Bytes of a layer's activations in a block. A block of 1 → 2x16 → 1 costs 24 ns an event and
#: member with 1 MiB, 30 with 128 KiB, where calls take their share, and 70 with 16 MiB, where the
#: activations come from memory (one core of an AMD EPYC 7003, ReLU).
_LAYER_BYTES = 1 << 20
_EVENTS = 1 << 12  # of a block at most; rows of the batch as long as this are long enough


@torch.no_grad()
def logits(shape: Perceptron, parameters: Tensor, x: Tensor) -> Tensor:
    """Log ratios of balanced classifiers, log p_numerator(x) / p_reference(x), as each learned it.

    The work is cut into blocks of members and events whose activations stay in the cache.

    Parameters
    ----------
    shape
        Of all members.
    parameters
        [M, P] as `members.Trained.parameters` has them: a feature that a member does not see has
        weights 0.
    x
        [N, D] features, D those of the shape.

    Returns
    -------
    Tensor
        [M, N]; nan for a member whose parameters are nan.

    Raises
    ------
    ValueError
        Parameters or features that do not fit the shape.
    """
    if parameters.ndim != 2 or parameters.shape[1] != shape.size:
        raise ValueError(
            f"{shape} has [M, {shape.size}] parameters, not {list(parameters.shape)}: give those"
            " of networks of this shape"
        )
    if x.ndim != 2 or x.shape[1] != shape.inputs:
        raise ValueError(f"features are [N, {shape.inputs}] for {shape}, not {list(x.shape)}")
    found = parameters.new_empty(len(parameters), len(x))
    numbers = _LAYER_BYTES // found.element_size() // max(shape.hidden)
    events = max(1, min(_EVENTS, numbers, len(x)))
    members = max(1, min(numbers // events, len(parameters)))
    layers = [found.new_empty(members * width * events) for width in (*shape.hidden, 1)]
    columns = x.to(found).T.contiguous()
    for some in _blocks(len(parameters), members):
        for part in _blocks(len(x), events):
            _block(shape, parameters[some], columns[:, part], layers, found[some, part])
    return found


def _block(
    shape: Perceptron, parameters: Tensor, columns: Tensor, layers: list[Tensor], into: Tensor
) -> None:
    """[m, P] parameters and [D, n] features → `into` [m, n], by way of `layers`."""
    (first, shift), *maps = shape.views(parameters)
    members, events = into.shape
    before = layers[0][: members * shape.hidden[0] * events].view(-1, events)
    # members see the same events: one product serves all
    torch.addmm(shift.reshape(-1, 1), first.reshape(-1, shape.inputs), columns, out=before)
    seen = before.view(members, -1, events)
    for (weight, bias), layer in zip(maps, layers[1:], strict=True):
        width = weight.shape[1]
        before = layer[: members * width * events].view(members, width, events)
        torch.baddbmm(bias, weight, activate_(shape.activation, seen), out=before)
        seen = before
    into.copy_(seen.squeeze(1))


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
