"""What trained members say of events: logits of many networks for many events."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from sml_kernel.sbi.stack import compiled
from sml_kernel.sbi.stack.activations import activate_
from sml_kernel.sbi.stack.layout import layout
from sml_kernel.sbi.stack.perceptrons import Perceptron

#: Bytes of a layer's activations in a block of a stack.
_LAYER_BYTES = 1 << 20
_EVENTS = 1 << 12  # of a block at most; rows of the batch as long as this are long enough


@torch.no_grad()
def logits(shape: Perceptron, parameters: Tensor, x: Tensor) -> Tensor:
    """Log ratios of balanced classifiers, log p_numerator(x) / p_reference(x), as each learned it.

    On a CPU compiled code takes member by member, in as many threads as torch has; elsewhere blocks
    of members and events are products of torch.

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
    if parameters.device.type == "cpu" and parameters.dtype == torch.float32:
        return _compiled(shape, parameters, x)
    return _stacked(shape, parameters, x)


def _compiled(shape: Perceptron, parameters: Tensor, x: Tensor) -> Tensor:
    net, columns = (
        layout(shape.inputs, shape.hidden),
        np.ascontiguousarray(x.detach().float().cpu().T.numpy()),
    )

    def logits_of(some: np.ndarray) -> np.ndarray:
        return compiled.evaluate(net, shape.activation, some, columns)

    parts = np.array_split(parameters.detach().numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as threads:
        return torch.from_numpy(np.concatenate(list(threads.map(logits_of, parts))))


def _stacked(shape: Perceptron, parameters: Tensor, x: Tensor) -> Tensor:
    """By blocks of members and events, whose activations stay in the cache."""
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
