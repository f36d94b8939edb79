"""One step of training on one rank, the same for `train` and for its benchmark, timed by phases.

============ ===================================================================================
``data_s``   waiting for graphs that are being read ahead
``forward_s``, ``backward_s``
``wait_s``   until the slowest rank is there: a message of a few numbers goes round before the
             gradients do; its own latency, a fraction of a millisecond, counts as waiting
``reduce_s`` the sum of gradients over ranks, none of which is hidden behind computation here
``update_s`` clearing of gradients, clipping, the optimiser
``step_s``   the whole by another clock: the phases leave no gap, which a test watches
``cpu_s``    CPU seconds of this process up to the wait
============ ===================================================================================

The loss of a step is the weighted mean over the edges of the whole batch. Each rank sums over its
part and divides by the weight of the whole; sums are added over ranks, so that gradients do not
depend on how many there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch_geometric.data import Data

PHASES = ("data", "forward", "backward", "wait", "reduce", "update")
_LARGEST_NORM = 1.0  # of the gradient: beyond it is scaled down


@dataclass(frozen=True)
class Taken:
    """What a step was.

    Attributes
    ----------
    loss
        Of the whole batch, the same on every rank.
    gradient_norm
        Before clipping.
    seconds
        See `sml_kernel.tracking.step`.
    asked
        For each of the rank's questions, whether any rank asked it.
    """

    loss: float
    gradient_norm: float
    seconds: dict[str, float]
    asked: tuple[bool, ...]


def take(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    graphs: Iterator[Data],
    count: int,
    total_weight: float,
    device: torch.device,
    asks: Sequence[bool] = (),
) -> Taken:
    """One step with the next graphs: gradients of all ranks' graphs together, and an update.

    Parameters
    ----------
    model, optimiser
        On `device`; changed in place.
    graphs
        On `device`: from `sml_kernel.tracking.prefetch.graphs_ahead`.
    count
        How many of them are this rank's part of the step; 0 is allowed if others have some.
    total_weight
        Sum of edge weights over the graphs of all ranks.
    device
        Where it computes.
    asks
        Questions that travel with the message before the gradients: see `Taken.asked`. Each rank
        gives as many.
    """
    cpu, begin = time.process_time(), time.perf_counter()
    marks = Marks(device)
    model.zero_grad(set_to_none=False)
    loss = torch.zeros((), device=device)
    marks.end("update")
    for _ in range(count):
        graph = next(graphs)
        marks.end("data")
        logits = model(graph.x, graph.edge_index, graph.edge_attr)
        part = edge_loss(logits, graph.y, graph.weight) / total_weight
        marks.end("forward")
        part.backward()
        loss += part.detach()
        marks.end("backward")
    cpu_s = time.process_time() - cpu
    asked = ask_all(asks, device)
    marks.end("wait")
    loss = add_over_ranks(model, loss)
    marks.end("reduce")
    norm = nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_NORM)
    optimiser.step()
    figures = torch.cat([torch.stack([loss, norm]), asked]).tolist()  # waits for a GPU, once a step
    marks.end("update")
    step_s = time.perf_counter() - begin
    seconds = {**marks.seconds(), "step_s": step_s, "cpu_s": cpu_s}
    return Taken(figures[0], figures[1], seconds, tuple(answer > 0 for answer in figures[2:]))


def edge_loss(logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum (not mean) of the binary cross-entropy over edges: [E], [E], [E] → scalar."""
    loss = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return (loss * weight).sum()


def ask_all(asks: Sequence[bool], device: torch.device) -> Tensor:
    """[A] how many ranks ask each question; comes back when the slowest is there."""
    asked = torch.tensor([float(ask) for ask in asks] or [0.0], device=device)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(asked)
    return asked[: len(asks)]


def add_over_ranks(model: nn.Module, loss: Tensor) -> Tensor:
    """Sum gradients and loss over all ranks in one message; gives the summed loss."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return loss
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    dist.all_reduce(flat)
    pieces = flat[1:].split([gradient.numel() for gradient in gradients])
    for parameter, piece in zip(model.parameters(), pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
    return flat[0]


class Marks:
    """Ends of phases, on the host's clock or as events of a GPU.

    Events are passed when the GPU gets there and make nobody wait: the phases of a step are then
    those of the GPU, with the times in which it had nothing to do, and their borders cost nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Any, Any]] = []
        self._last = self._now()

    def end(self, phase: str) -> None:
        """What was done since the last mark belongs to `phase`, one of `PHASES`."""
        now = self._now()
        self._spans.append((phase, self._last, now))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """``<phase>_s`` of each phase so far; waits for the GPU to reach the last mark."""
        spent = {f"{phase}_s": 0.0 for phase in PHASES}
        if self._device.type == "cuda":
            self._last.synchronize()
        for phase, start, end in self._spans:
            cuda = self._device.type == "cuda"
            spent[f"{phase}_s"] += start.elapsed_time(end) / 1e3 if cuda else end - start
        return spent

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
