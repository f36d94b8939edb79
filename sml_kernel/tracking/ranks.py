"""What each rank of a training does: its part of each batch, and its part of the validation."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sml_kernel import records
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.store import GraphStore, open_graphs

WATCHED = "rank0"
INITIAL = "initial.safetensors"
_BINS = 2000  # of the score histogram from which the area under the ROC curve is taken


@dataclass(frozen=True)
class Settings:
    """See `sml_kernel.tracking.train`."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_rank(rank: int, ranks: int, *, folder: Path, settings: Settings) -> str:
    """Train; returns a digest of the final weights, which must be the same on every rank."""
    run = records.Run(folder)
    graphs = open_graphs(folder / "graphs" / "train")
    validation = open_graphs(folder / "graphs" / "validation")
    device = device_of_rank()
    model = InteractionGNN.load(folder / "checkpoints" / INITIAL).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    steps = settings.epochs * -(-len(graphs) // settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(learning_rate, steps=steps))
    step = 0
    with run.writer(f"rank{rank}") as writer:
        for epoch in range(settings.epochs):
            begin, losses = time.perf_counter(), []
            for whole in batches(len(graphs), settings, epoch):
                row = _step(model, graphs, share(graphs, whole, rank, ranks), whole, device)
                optimiser.step()
                schedule.step()
                losses.append(row["loss"])
                writer.append("step", epoch=epoch, step=step, **row)
                step += 1
            found = validate(model, validation, rank, ranks, device)
            seconds = time.perf_counter() - begin
            if rank == 0:
                model.save(folder / "checkpoints" / f"epoch-{epoch:04d}.safetensors")
                edges = sum(entry.edges for entry in graphs.entries)
                writer.append(
                    "epoch",
                    epoch=epoch,
                    train_loss=float(np.mean(losses)),
                    **found,
                    seconds=seconds,
                    edges_per_s=edges / seconds,
                )
    if rank == 0:
        run.finish("done")
    return _digest(model)


def last_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run, the initial weights if it has no other."""
    found = sorted((folder / "checkpoints").glob("epoch-*.safetensors"))
    return found[-1] if found else folder / "checkpoints" / INITIAL


def batches(n_graphs: int, settings: Settings, epoch: int) -> Iterator[list[int]]:
    """Graph numbers of each step of an epoch: every graph once, in an order of seed and epoch."""
    order = np.random.default_rng([settings.seed, epoch]).permutation(n_graphs)
    for start in range(0, n_graphs, settings.batch):
        yield order[start : start + settings.batch].tolist()


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: up in the first tenth, then down a cosine to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def share(graphs: GraphStore, whole: list[int], rank: int, ranks: int) -> list[int]:
    """This rank's part of a batch: the largest graph left goes to the rank with fewest edges."""
    load, mine = [0] * ranks, []
    for number in sorted(whole, key=lambda number: -graphs.entries[number].edges):
        to = load.index(min(load))
        load[to] += graphs.entries[number].edges
        if to == rank:
            mine.append(number)
    return mine


def edge_loss(logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum (not mean) of the binary cross-entropy over edges: [E], [E], [E] → scalar."""
    loss = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return (loss * weight).sum()


def validate(
    model: nn.Module, graphs: GraphStore, rank: int, ranks: int, device: torch.device
) -> dict[str, float]:
    """Loss, efficiency, purity at 0.5 and ROC area over all validation edges, on every rank.

    Empty without validation graphs. Each rank takes every ``ranks``-th graph; sums and score
    histograms are added over ranks, so that the figures do not depend on their number.
    """
    if not len(graphs):
        return {}
    model.eval()
    # on the device: nccl adds up nothing else
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    histogram = torch.zeros(2, _BINS, dtype=torch.float64, device=device)
    with torch.no_grad():
        for number in range(rank, len(graphs), ranks):
            graph = graphs[number].to(device)
            logits = model(graph.x, graph.edge_index, graph.edge_attr)
            loss = edge_loss(logits, graph.y, graph.weight)
            sums += torch.stack([loss, graph.weight.sum()]).double()
            scores = torch.sigmoid(logits).float()
            for truth in (0, 1):
                histogram[truth] += torch.histc(scores[graph.y == truth], _BINS, 0, 1)
    model.train()
    if ranks > 1:
        dist.all_reduce(sums)
        dist.all_reduce(histogram)
    return {"validation_loss": float(sums[0] / sums[1]), **_edge_figures(histogram.cpu())}


def _edge_figures(histogram: Tensor) -> dict[str, float]:
    false, true = histogram
    taken_true, taken_false = true[_BINS // 2 :].sum(), false[_BINS // 2 :].sum()
    below = torch.cumsum(false, 0) - false / 2  # false edges that score lower, ties by halves
    return {
        "edge_efficiency": float(taken_true / true.sum()),
        "edge_purity": float(taken_true / (taken_true + taken_false)),
        "auc": float((true * below).sum() / (true.sum() * false.sum())),
    }


def _step(
    model: nn.Module, graphs: GraphStore, mine: list[int], whole: list[int], device: torch.device
) -> dict[str, float]:
    """Gradients of one batch, summed over ranks; what it took on this one."""
    clock = [time.perf_counter()]
    model.zero_grad(set_to_none=False)
    total = sum(graphs.entries[number].weight for number in whole)
    loss = torch.zeros((), device=device)
    for number in mine:
        graph = graphs[number].to(device)
        logits = model(graph.x, graph.edge_index, graph.edge_attr)
        part = edge_loss(logits, graph.y, graph.weight) / total
        part.backward()
        loss += part.detach()
    clock.append(time.perf_counter())
    loss = add_over_ranks(model, loss)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    clock.append(time.perf_counter())
    return {
        "loss": float(loss),
        "gradient_norm": float(norm),
        "edges": sum(graphs.entries[number].edges for number in mine),
        "compute_s": clock[1] - clock[0],
        "wait_and_reduce_s": clock[2] - clock[1],
    }


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


def device_of_rank() -> torch.device:
    """This rank's GPU, if there are any; pinned ranks see one only."""
    import os

    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local % torch.cuda.device_count())


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
