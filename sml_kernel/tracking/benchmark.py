"""Training steps timed phase by phase, as a callable that a scaling study runs.

A step is that of `sml_kernel.tracking.train`, with two differences: every graph is read, computed
and waited for on the clock, and a message of one number goes round before the gradients do. That
tells waiting for the slowest rank from adding the gradients, none of which is hidden behind
computation here; the message itself (one latency of the network) counts as waiting.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch_geometric.data import Data

from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.ranks import add_over_ranks, device_of_rank, edge_loss, share
from sml_kernel.tracking.store import GraphStore, open_graphs, write_graphs
from sml_kernel.workers import gang

ASSIGNMENTS = ("edges", "count")


@dataclass(frozen=True)
class StepSettings:
    """See `step_benchmark`."""

    batch: int
    steps: int
    warm_up: int
    hidden: int
    iterations: int
    assign: str
    seed: int


@dataclass(frozen=True)
class StepBenchmark:
    """A benchmark of the graphs in `store`, from `step_benchmark`."""

    store: GraphStore
    settings: StepSettings
    workers: Any
    threads: int | None
    timeout_s: float | None

    @property
    def parameters(self) -> dict[str, Any]:
        """What a study records, and asks to be the same when it goes on."""
        return {
            **vars(self.settings),
            "threads": self.threads,
            "graphs": len(self.store),
            "data_hash": self.store.hash(),
        }

    def __call__(self, ranks: int, mode: str) -> list[dict[str, Any]]:
        """Time the steps on a fresh gang.

        Parameters
        ----------
        ranks
            Processes.
        mode
            ``"strong"``: each step takes ``batch`` graphs; ``"weak"``: that many for each rank.

        Returns
        -------
        list of dict
            Kind ``"rank"``: where each rank ran. Kind ``"step"``, a row a rank and step: its share
            (``graphs, edges, hits``), seconds in each phase (``data_s, forward_s, backward_s,
            wait_s, reduce_s, update_s``) and in all (``step_s``), CPU seconds up to the wait
            (``cpu_s``), and whether it is ``warm_up``.

        Raises
        ------
        ValueError
            A step has fewer graphs than ranks, or an unknown mode.
        GangError
            A rank failed.
        """
        whole = _graphs_a_step(self.settings, ranks, mode)
        function = partial(
            time_rank, folder=self.store.folder.absolute(), settings=self.settings, whole=whole
        )
        by_rank = gang.run(
            function, ranks, workers=self.workers, threads=self.threads, timeout_s=self.timeout_s
        )
        return [row for rows in by_rank for row in rows]

    def loads(self, ranks: int, mode: str) -> np.ndarray:
        """[steps, ranks, 2] graphs and edges of each rank in each timed step; nothing is run."""
        whole = _graphs_a_step(self.settings, ranks, mode)
        drawn = list(_batches(len(self.store), self.settings, whole))[self.settings.warm_up :]
        found = np.zeros((len(drawn), ranks, 2))
        for step, numbers in enumerate(drawn):
            for rank in range(ranks):
                mine = _mine(self.store, numbers, rank, ranks, self.settings)
                found[step, rank] = len(mine), sum(self.store.entries[k].edges for k in mine)
        return found


def step_benchmark(
    graphs: Sequence[Data],
    *,
    batch: int = 4,
    steps: int = 20,
    warm_up: int = 3,
    hidden: int = 64,
    iterations: int = 6,
    assign: str = "edges",
    seed: int = 0,
    workers: Any = None,
    threads: int | None = 1,
    timeout_s: float | None = 600,
    folder: str | os.PathLike[str] = "runs/graphs",
) -> StepBenchmark:
    """Make a benchmark of training steps on graphs, for ``scaling.study``.

    Parameters
    ----------
    graphs
        From `build_graphs`; taken in an order of `seed`, from the start again when all were taken.
        The order is the same for every number of ranks and every repeat.
    batch
        Graphs a step: over all ranks in a strong study, of each rank in a weak one.
    steps, warm_up
        How many steps are timed, and how many go before that are recorded apart.
    hidden, iterations
        Of the `InteractionGNN`.
    assign
        How a step's graphs are shared out: ``"edges"`` evens out the edges as training does,
        ``"count"`` deals one graph after the other, whatever their size.
    seed
        Of the order of graphs and of the weights.
    workers
        What `sml_kernel.launch` gave. None: on this machine.
    threads
        Of each rank, whatever their number: points then differ by ranks alone. None shares out the
        cores, so that few ranks have more threads each.
    timeout_s
        Of each point, from the start of its processes.
    folder
        Where graphs are put for the ranks, in a folder named by their hash; all hosts must see it.

    Raises
    ------
    ValueError
        No graphs, a number below 1, or an unknown `assign`.
    """
    if not len(graphs) or min(batch, steps, hidden, iterations) < 1 or warm_up < 0:
        raise ValueError("a benchmark needs graphs, and at least 1 of batch, steps, hidden, …")
    if assign not in ASSIGNMENTS:
        raise ValueError(f"unknown assignment {assign!r}; known: {', '.join(ASSIGNMENTS)}")
    settings = StepSettings(batch, steps, warm_up, hidden, iterations, assign, seed)
    return StepBenchmark(_kept(graphs, Path(folder)), settings, workers, threads, timeout_s)


def time_rank(
    rank: int, ranks: int, *, folder: Path, settings: StepSettings, whole: int
) -> list[dict[str, Any]]:
    """One rank's rows: where it runs, and what it did in each step of `whole` graphs."""
    store, device = open_graphs(folder), device_of_rank()
    torch.manual_seed(settings.seed)
    first = store[0]
    model = InteractionGNN(
        first.x.shape[1], first.edge_attr.shape[1], settings.hidden, settings.iterations
    ).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rows = [{"kind": "rank", "rank": rank, **_where(device)}]
    for step, numbers in enumerate(_batches(len(store), settings, whole)):
        mine = _mine(store, numbers, rank, ranks, settings)
        total = sum(store.entries[number].weight for number in numbers)
        row = _timed_step(model, optimiser, store, mine, total, device)
        rows.append(
            {"kind": "step", "rank": rank, "step": step, "warm_up": step < settings.warm_up}
            | {"graphs": len(mine), "edges": sum(store.entries[k].edges for k in mine)}
            | {"hits": sum(store.entries[k].nodes for k in mine), **row}
        )
    return rows


def _timed_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    store: GraphStore,
    mine: list[int],
    total: float,
    device: torch.device,
) -> dict[str, float]:
    """Seconds in each phase of one step, without a gap between them; graphs go one by one."""
    spent = dict.fromkeys(("data_s", "forward_s", "backward_s"), 0.0)
    begin, cpu = _now(device), time.process_time()
    model.zero_grad(set_to_none=False)
    loss = torch.zeros((), device=device)
    cleared = computed = _now(device)
    for number in mine:
        clock = [computed]
        graph = store[number].to(device)
        clock.append(_now(device))
        logits = model(graph.x, graph.edge_index, graph.edge_attr)
        part = edge_loss(logits, graph.y, graph.weight) / total
        clock.append(_now(device))
        part.backward()
        loss += part.detach()
        clock.append(_now(device))
        for name, (start, end) in zip(spent, pairwise(clock), strict=True):
            spent[name] += end - start
        computed = clock[-1]
    cpu_s = time.process_time() - cpu
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(torch.zeros(1, device=device))  # comes back when the slowest is there
    together = _now(device)
    loss = add_over_ranks(model, loss)
    added = _now(device)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    end = _now(device)
    spent |= {"wait_s": together - computed, "reduce_s": added - together}
    spent["update_s"] = (cleared - begin) + (end - added)  # gradients cleared, weights updated
    return {**spent, "step_s": end - begin, "cpu_s": cpu_s, "loss": float(loss)}


def _now(device: torch.device) -> float:
    """The clock, once the GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _where(device: torch.device) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "launch_blocking": os.environ.get("CUDA_LAUNCH_BLOCKING", ""),
        "load": os.getloadavg()[0],
    }


def _graphs_a_step(settings: StepSettings, ranks: int, mode: str) -> int:
    if mode not in ("strong", "weak"):
        raise ValueError(f"unknown mode {mode!r}; known: strong, weak")
    whole = settings.batch * (ranks if mode == "weak" else 1)
    if whole < ranks:
        raise ValueError(
            f"a step of {whole} graphs cannot give each of {ranks} ranks one: raise batch to at "
            f"least {ranks}, or study weak scaling"
        )
    return whole


def _batches(n_graphs: int, settings: StepSettings, whole: int) -> Iterator[list[int]]:
    """Graph numbers of each step, warm-up included; none twice before all were once."""
    random = np.random.default_rng(settings.seed)
    ahead: list[int] = []
    for _ in range(settings.warm_up + settings.steps):
        while len(ahead) < whole:
            ahead += random.permutation(n_graphs).tolist()
        yield ahead[:whole]
        del ahead[:whole]


def _mine(
    store: GraphStore, numbers: list[int], rank: int, ranks: int, settings: StepSettings
) -> list[int]:
    if settings.assign == "edges":
        return share(store, numbers, rank, ranks)
    return numbers[rank::ranks]


def _kept(graphs: Sequence[Data], folder: Path) -> GraphStore:
    """The store of these very graphs below `folder`, written if it is not there yet."""
    digest = hashlib.sha256()
    for graph in graphs:
        for name in ("x", "edge_index", "edge_attr", "y", "weight"):
            digest.update(f"{name} {tuple(graph[name].shape)} ".encode())
            digest.update(graph[name].contiguous().numpy().tobytes())
    kept = folder / digest.hexdigest()[:16]
    if not (kept / "index.json").exists():
        partial_store = kept.with_name(f".{kept.name}.{os.getpid()}")
        shutil.rmtree(partial_store, ignore_errors=True)
        write_graphs(graphs, partial_store)
        partial_store.rename(kept)
    return open_graphs(kept)
