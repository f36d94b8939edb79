"""Row-wise functions run a block of rows at a time, their internals made again for the gradient.

A perceptron on 100,000 edges writes and reads arrays of 50 MB between any two of its operations;
on blocks of a thousand rows they stay in the cache, and their memory is used again instead of
being asked from the system. Backward makes each block's internals again just before they are
needed: what is kept of an update is what goes into it. No number depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sml_kernel.tracking.gradients import of_block
from sml_kernel.tracking.perceptron import Steps
from sml_kernel.tracking.segments import Incidence, collect, collect_rows, spread, spread_rows


@dataclass(frozen=True)
class Work:
    """One function on rows, and how to run it.

    Attributes
    ----------
    function
        Takes blocks of rows, then a block of what is spread from nodes if `graph` is given, then
        parameters; gives a block of rows. No row may depend on another.
    rows
        Rows a block.
    padded
        Every block has exactly `rows` rows, the last filled with zeros: one shape to compile.
    graph
        Where edges end; None for a function of nodes.
    collects
        Also give the sums of the result at the ends of edges.
    overwrites
        Without gradients: write the result over the first of the inputs.
    keeps
        Keep internals for the gradient instead of making them again; one block of all rows.
    steps, residual
        What the function is, for a gradient that is written out (`gradients`); None: autograd.
    """

    function: Callable[..., Tensor]
    rows: int
    padded: bool = False
    graph: Incidence | None = None
    collects: bool = False
    overwrites: bool = False
    keeps: bool = False
    steps: Steps | None = None
    residual: bool = False

    def blocks(self, count: int) -> range:
        """First rows of the blocks; at least one, so that no rows give a result of their shape."""
        return range(0, max(count, 1), self.rows)

    def call(self, rows: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The function on one block."""
        count = len(rows[0])
        if not self.padded or count == self.rows:
            return self.function(*rows, *parameters)
        filled = [functional.pad(block, (0, 0, 0, self.rows - count)) for block in rows]
        return self.function(*filled, *parameters)[:count]


def in_blocks(
    work: Work, inputs: Sequence[Tensor], parameters: Sequence[Tensor], table: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Run a function on rows, block by block.

    Parameters
    ----------
    inputs
        [M, ·] arrays of rows.
    parameters
        Handed to the function whole.
    table
        [2N, H] rows of the ends of edges, spread to the edges of each block.

    Returns
    -------
    tuple
        [M, ·] the result, and [2N, ·] its sums at the ends of edges where the work collects them.
    """
    if not torch.is_grad_enabled():
        return _forward(work, inputs, parameters, table, inputs[0] if work.overwrites else None)
    if work.keeps:
        return _kept(work, inputs, parameters, table)
    return _Blockwise.apply(work, len(inputs), table, *inputs, *parameters)


def _kept(
    work: Work, inputs: Sequence[Tensor], parameters: Sequence[Tensor], table: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """All rows at once, differentiated by autograd."""
    rows = list(inputs)
    if table is not None and work.graph is not None:
        rows.append(spread(table, work.graph))
    result = work.call(rows, parameters)
    return result, collect(result, work.graph) if work.collects and work.graph else None


def _forward(
    work: Work,
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    table: Tensor | None,
    result: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The result, written over `result` if it can hold it, and its sums if they are wanted."""
    for start in work.blocks(len(inputs[0])):
        block = work.call(_cut(work, inputs, table, start), parameters)
        if result is None or result.dtype != block.dtype:
            result = block.new_empty(len(inputs[0]), block.shape[1])
        result[start : start + len(block)] = block
    assert result is not None
    if not work.collects:
        return result, None
    assert work.graph is not None
    return result, collect_rows(result, work.graph)


def _cut(work: Work, inputs: Sequence[Tensor], table: Tensor | None, start: int) -> list[Tensor]:
    rows = [whole[start : start + work.rows] for whole in inputs]
    if table is not None:
        assert work.graph is not None
        rows.append(spread_rows(table, work.graph.ends[start : start + work.rows]))
    return rows


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: Work, n_inputs: int, table: Tensor | None, *tensors: Tensor) -> Any:
        ctx.work, ctx.n_inputs, ctx.has_table = work, n_inputs, table is not None
        ctx.save_for_backward(*([] if table is None else [table]), *tensors)
        kind = tensors[0].device.type
        ctx.autocast = {
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
            "cache_enabled": False,  # a weight cast here, without gradient, must not be met later
        }
        with torch.autocast(**ctx.autocast):
            return _forward(work, tensors[:n_inputs], tensors[n_inputs:], table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        work: Work = ctx.work
        saved = list(ctx.saved_tensors)
        table = saved.pop(0) if ctx.has_table else None
        inputs, parameters = saved[: ctx.n_inputs], saved[ctx.n_inputs :]
        wanted = list(ctx.needs_input_grad[3:])
        if table is not None:  # the ends are the last of the rows
            wanted.insert(ctx.n_inputs, ctx.needs_input_grad[2])
        if work.steps is not None and not ctx.autocast["enabled"] and all(wanted[ctx.n_inputs :]):
            return None, None, *_written_out(work, inputs, parameters, table, gradients, wanted)
        whole = [torch.empty_like(rows) for rows in inputs]
        if table is not None:
            whole.append(table.new_empty(len(inputs[0]), table.shape[1]))
        sums: list[Tensor] = []
        for start in work.blocks(len(inputs[0])):
            rows = _cut(work, inputs, table, start)
            rows = [row.detach().requires_grad_(w) for row, w in zip(rows, wanted, strict=False)]
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                result = work.call(rows, parameters)
            leaves = [t for t, w in zip([*rows, *parameters], wanted, strict=True) if w]
            found = torch.autograd.grad(
                result, leaves, _arriving(work, gradients, start, result, len(result))
            )
            of_rows = iter(found)
            for into, row in zip(whole, rows, strict=True):
                if row.requires_grad:
                    into[start : start + work.rows] = next(of_rows)
            pieces = list(of_rows)
            if sums and pieces:
                torch._foreach_add_(sums, pieces)
            sums = sums or [piece.clone() for piece in pieces]
        of_table = None
        if table is not None and work.graph is not None:
            of_table = collect_rows(whole.pop(), work.graph)
            wanted.pop(ctx.n_inputs)
        of_parameters = iter(sums)
        rest = [next(of_parameters) if w else None for w in wanted[ctx.n_inputs :]]
        kept = [rows if w else None for rows, w in zip(whole, wanted, strict=False)]
        return None, None, of_table, *kept, *rest


def _written_out(
    work: Work,
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    table: Tensor | None,
    gradients: Sequence[Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of the table, of inputs and of parameters, block by block (`gradients`)."""
    assert work.steps is not None
    whole = [torch.empty_like(rows) if w else None for rows, w in zip(inputs, wanted, strict=False)]
    of_ends = None if table is None else table.new_empty(len(inputs[0]), table.shape[1])
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for start in work.blocks(len(inputs[0])):
        rows = _cut(work, inputs, table, start)
        ends = None if table is None else rows.pop()
        here = slice(start, start + len(rows[0]))
        of_block(
            work.steps,
            rows,
            ends,
            parameters,
            _arriving(work, gradients, start, rows[0], len(rows[0])),
            work.residual,
            [None if each is None else each[here] for each in whole],
            None if of_ends is None else of_ends[here],
            sums,
        )
    of_table = None
    if of_ends is not None and work.graph is not None:
        of_table = collect_rows(of_ends, work.graph)
    return [of_table, *whole, *sums]


def _arriving(
    work: Work, gradients: Sequence[Tensor], start: int, like: Tensor, count: int
) -> Tensor:
    """The gradient that reaches a block: its own rows', and what the sums at nodes send back."""
    own = gradients[0][start : start + count]
    if work.collects:
        assert work.graph is not None
        ends = work.graph.ends[start : start + work.rows]
        own = own + spread_rows(gradients[1], ends)
    return own.to(like.dtype)
