"""How the network's perceptrons run: in what blocks, kept or made again, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from sml_kernel.tracking.blocks import Work, in_blocks
from sml_kernel.tracking.gradients import written_out
from sml_kernel.tracking.perceptron import Steps, on_edges, on_rows, steps
from sml_kernel.tracking.segments import Incidence

#: Rows a block on a CPU: at width 128, 1 MB an array; half or twice as many cost the same.
CACHED_ROWS = 2048
#: Arrays of rows from which on a CPU waits for memory more than it computes: below, making
#: internals again lengthened a training step by 1.7 (16k edges of width 48), above it did not.
LARGE_BYTES = 1 << 24
_SHAPES = 64  # compiled shapes of one function before torch gives up; each is meant


class OnEnds(nn.Module):
    """A perceptron on [edge rows, source row, target row], whose first linear map is split.

    Parameters
    ----------
    modules
        Of `perceptron.layers`.
    edge_width
        How many of its inputs come from the edge; 0 if it sees the hits alone.
    """

    def __init__(self, modules: Sequence[nn.Module], edge_width: int) -> None:
        super().__init__()
        first, *rest = modules
        assert isinstance(first, nn.Linear)
        self.first, self.rest, self.edge_width = first, nn.Sequential(*rest), edge_width

    def table(self, nodes: Tensor) -> Tensor:
        """[N, ·] node rows → [2N, H]: the product of each as a target, with the bias, and as a
        source, in one matrix product."""
        source, target = self.first.weight[:, self.edge_width :].chunk(2, dim=1)
        bias = functional.pad(self.first.bias, (0, len(self.first.bias)))
        both = functional.linear(nodes, torch.cat([target, source]), bias)
        return both.view(2 * len(nodes), -1)

    def weights(self) -> list[Tensor]:
        """What `perceptron.on_edges` takes after the ends."""
        return [self.first.weight[:, : self.edge_width], *self.rest.parameters()]


@dataclass(frozen=True)
class Runner:
    """How to run.

    Attributes
    ----------
    checkpointing
        Make internals again for the gradient. None: on a CPU, for arrays of `LARGE_BYTES`.
    compiles
        Run blocks through torch.compile, every block padded to one shape.
    """

    checkpointing: bool | None = None
    compiles: bool = False

    def rows(self, module: nn.Module, inputs: Sequence[Tensor], residual: bool) -> Tensor:
        """A perceptron on arrays of rows side by side, plus the first of them if `residual`."""
        done = steps(list(module.children()))
        function = _bound(on_rows, done, len(inputs), residual, self.compiles)
        work = self._work(function, inputs[0], done, residual)
        return in_blocks(work, inputs, list(module.parameters()))[0]

    def edges(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        nodes: Tensor,
        graph: Incidence,
        residual: bool = False,
        collects: bool = False,
        overwrites: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """A perceptron on edge rows and node rows, and its sums at the ends if it `collects`."""
        assert isinstance(module, OnEnds)
        done = steps(list(module.rest))
        function = _bound(on_edges, done, len(inputs), residual, self.compiles)
        work = self._work(function, inputs[0], done, residual, graph, collects, overwrites)
        return in_blocks(work, inputs, module.weights(), module.table(nodes))

    def _work(
        self,
        function: Callable[..., Tensor],
        rows: Tensor,
        done: Steps,
        residual: bool,
        graph: Incidence | None = None,
        collects: bool = False,
        overwrites: bool = False,
    ) -> Work:
        on_cpu = rows.device.type == "cpu"
        large = on_cpu and rows.nbytes >= LARGE_BYTES
        keeps = not (large if self.checkpointing is None else self.checkpointing)
        blocked = on_cpu and not (keeps and torch.is_grad_enabled())
        count = CACHED_ROWS if blocked else bucket(len(rows)) if self.compiles else len(rows)
        return Work(
            function,
            max(count, 1),
            padded=self.compiles,
            graph=graph,
            collects=collects,
            overwrites=overwrites,
            keeps=keeps,
            steps=done if written_out(done) and not self.compiles else None,
            residual=residual,
        )


def bucket(count: int) -> int:
    """The next size of a grid of eight sizes an octave, at least `CACHED_ROWS`.

    Counts that differ from graph to graph fall into few shapes to compile; at most an eighth of
    the rows is padding.
    """
    if count <= CACHED_ROWS:
        return CACHED_ROWS
    step = 1 << ((count - 1).bit_length() - 4)
    return -(-count // step) * step


@cache
def _bound(
    function: Callable[..., Tensor], done: Steps, inputs: int, residual: bool, compiles: bool
) -> Callable[..., Tensor]:
    """The function of rows and weights alone; made once, as it holds what was compiled."""
    bound = partial(function, done, inputs, residual)
    if not compiles:
        return bound
    import torch._dynamo

    compiled = torch.compile(bound, dynamic=False, fullgraph=True)

    def call(*tensors: Tensor) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=_SHAPES):
            return compiled(*tensors)

    return call
