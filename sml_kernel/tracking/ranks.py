"""What each rank of a training does: its part of each batch, and its part of the validation.

A row ``step`` is written by every rank, ``epoch`` and ``checkpoint`` by rank 0, ``rank`` by every
rank once each time. ``step`` in a row is the last step that it knows of.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch_geometric.data import Data

from sml_kernel import records
from sml_kernel.tracking import checkpoint, memory, sampler, step
from sml_kernel.tracking.checkpoint import Progress
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.prefetch import graphs_ahead
from sml_kernel.tracking.store import GraphStore, open_graphs
from sml_kernel.tracking.validation import validate

WATCHED = "rank0"


@dataclass(frozen=True)
class Settings:
    """See `sml_kernel.tracking.train`."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Start:
    """From where a training goes on this time.

    Attributes
    ----------
    state
        Name of the checkpoint.
    session
        How often the training was taken up before.
    finishes
        Folders of records that end with it.
    checkpoint_every_s
        Seconds from one checkpoint to the next, as far as steps and epochs allow.
    remakes
        Make internals again for the gradient, whatever the network is set to: memory is short.
    """

    state: str
    session: int
    finishes: tuple[Path, ...]
    checkpoint_every_s: float
    remakes: bool = False


@dataclass(frozen=True)
class Turn:
    """A step of the training.

    Attributes
    ----------
    epoch, step
        Counted from 0, over the whole training.
    whole, mine
        Graphs of the step, and those of this rank.
    ends_epoch
        Whether it is the last of its epoch.
    """

    epoch: int
    step: int
    whole: list[int]
    mine: list[int]
    ends_epoch: bool


def turns(
    edges: Sequence[int], settings: Settings, rank: int, ranks: int, first: int = 0
) -> Iterator[Turn]:
    """Steps of a training from step `first` on, with a rank's part of each."""
    per_epoch = sampler.steps_an_epoch(len(edges), settings.batch)
    for epoch in range(first // per_epoch, settings.epochs):
        drawn = sampler.batches(edges, settings.batch, settings.seed, epoch)
        for number in range(max(first, epoch * per_epoch), (epoch + 1) * per_epoch):
            whole = drawn[number - epoch * per_epoch]
            mine = sampler.deal(whole, edges, ranks)[rank]
            yield Turn(epoch, number, whole, mine, number + 1 == (epoch + 1) * per_epoch)


@dataclass(frozen=True)
class Rank:
    """One rank of a training under way."""

    rank: int
    ranks: int
    folder: Path
    settings: Settings
    start: Start
    graphs: GraphStore
    device: torch.device
    model: InteractionGNN
    optimiser: torch.optim.Optimizer
    writer: records.Writer

    @property
    def steps_an_epoch(self) -> int:
        return sampler.steps_an_epoch(len(self.graphs), self.settings.batch)

    def turns(self, first: int) -> Iterator[Turn]:
        return turns(self.graphs.edges, self.settings, self.rank, self.ranks, first)


def train_rank(rank: int, ranks: int, *, folder: Path, settings: Settings, start: Start) -> str:
    """Train; returns a digest of the final weights, which must be the same on every rank."""
    graphs, device = open_graphs(folder / "graphs" / "train"), device_of_rank()
    state = folder / "checkpoints" / start.state
    model, optimiser, progress = checkpoint.load(state, torch.optim.AdamW, device)
    if start.remakes:
        model.runner = memory.remade(model).runner
    with records.Run(folder).writer(f"rank{rank}") as writer:
        writer.append("rank", rank=rank, ranks=ranks, session=start.session, **place(device))
        me = Rank(rank, ranks, folder, settings, start, graphs, device, model, optimiser, writer)
        _train(me, progress)
    if rank == 0:
        for record in start.finishes:
            records.Run(record).finish("done")
    return digest(model)


def _train(me: Rank, progress: Progress) -> None:
    """All steps that are left. Ranks agree in each whether to write a checkpoint, or to end."""
    ahead_of_us = (number for turn in me.turns(progress.step) for number in turn.mine)
    step.ask_all((), me.device)  # the first step is not to wait for who starts last
    saved = time.monotonic()
    with _sigterm_noted() as noted, graphs_ahead(me.graphs, ahead_of_us, me.device) as graphs:
        for turn in me.turns(progress.step):
            due = me.rank == 0 and time.monotonic() - saved >= me.start.checkpoint_every_s
            progress, asked = _step(me, turn, graphs, progress, (due, bool(noted)))
            if turn.ends_epoch:
                progress = _end_epoch(me, turn, progress)
            if turn.ends_epoch or any(asked):
                _checkpoint(me, progress)
                saved = time.monotonic()
            if asked[1]:
                _end_by_sigterm()


def _step(
    me: Rank, turn: Turn, graphs: Iterator[Data], progress: Progress, asks: tuple[bool, bool]
) -> tuple[Progress, tuple[bool, ...]]:
    begin = time.perf_counter()
    steps = me.settings.epochs * me.steps_an_epoch
    rate = me.settings.learning_rate * learning_rate(turn.step, steps)
    for group in me.optimiser.param_groups:
        group["lr"] = rate
    weight = sum(me.graphs.entries[number].weight for number in turn.whole)
    mine = [me.graphs.entries[number] for number in turn.mine]
    count = sum(len(entry.files) for entry in mine)
    taken = step.take(me.model, me.optimiser, graphs, count, weight, me.device, asks)
    me.writer.append(
        "step",
        session=me.start.session,
        rank=me.rank,
        epoch=turn.epoch,
        step=turn.step,
        loss=taken.loss,
        gradient_norm=taken.gradient_norm,
        learning_rate=rate,
        graphs=len(mine),
        edges=sum(entry.edges for entry in mine),
        hits=sum(entry.nodes for entry in mine),
        **taken.seconds,
    )
    seconds = time.perf_counter() - begin
    after = Progress(turn.step + 1, progress.epoch_loss + taken.loss, progress.epoch_s + seconds)
    return after, taken.asked


def _end_epoch(me: Rank, turn: Turn, progress: Progress) -> Progress:
    """Validate and record the epoch; gives the progress with which the next one begins."""
    begin = time.perf_counter()
    held_out = open_graphs(me.folder / "graphs" / "validation")
    found = validate(me.model, held_out, me.rank, me.ranks, me.device)
    seconds = progress.epoch_s + time.perf_counter() - begin
    if me.rank == 0:
        me.model.save(me.folder / "checkpoints" / f"epoch-{turn.epoch:04d}.safetensors")
        me.writer.append(
            "epoch",
            epoch=turn.epoch,
            step=turn.step,
            train_loss=progress.epoch_loss / me.steps_an_epoch,
            **found,
            seconds=seconds,
            edges_per_s=sum(me.graphs.edges) / seconds,
        )
    return replace(progress, epoch_loss=0.0, epoch_s=0.0)


def _checkpoint(me: Rank, progress: Progress) -> None:
    """Rank 0 writes the state, once every rank has recorded the steps that it holds."""
    step.ask_all((), me.device).tolist()
    if me.rank == 0:
        begin = time.perf_counter()
        path = checkpoint.save(me.folder / "checkpoints", me.model, me.optimiser, progress)
        seconds, size = time.perf_counter() - begin, path.stat().st_size
        me.writer.append("checkpoint", step=progress.step - 1, seconds=seconds, bytes=size)


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: up in the first tenth, then down a cosine to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def device_of_rank() -> torch.device:
    """This rank's GPU, if there are any; pinned ranks see one only."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local % torch.cuda.device_count())


def place(device: torch.device) -> dict[str, Any]:
    """Where this rank runs, for its record."""
    return {
        "host": socket.gethostname(),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "launch_blocking": os.environ.get("CUDA_LAUNCH_BLOCKING", ""),
        "load": os.getloadavg()[0],
    }


@contextlib.contextmanager
def _sigterm_noted() -> Iterator[list[int]]:
    """SIGTERM goes into the list that this yields: who sends it gets a checkpoint first."""
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_by_sigterm() -> None:
    """End as if the signal had come now; all ranks do, so that none waits for one that is gone."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()  # the checkpoint is written
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


def digest(model: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().numpy().tobytes())
    return found.hexdigest()
