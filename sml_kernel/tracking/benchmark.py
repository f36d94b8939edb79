"""Training steps timed phase by phase, as a callable that a scaling study runs.

Steps, batches and reading ahead are those of `sml_kernel.tracking.train`: `step` says what is in a
phase. Only the few graphs that an epoch leaves over are left out, so that all steps are alike.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from sml_kernel.tracking import roofline, sampler, step
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.prefetch import graphs_ahead
from sml_kernel.tracking.ranks import device_of_rank, place
from sml_kernel.tracking.store import Entry, GraphStore, hash_graphs, keep_graphs, open_graphs
from sml_kernel.workers import gang

ASSIGNMENTS = ("edges", "count")
_COPIED_BYTES = 1 << 26


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
            Kind ``"rank"``: where each rank ran, and what it reached in a matrix product and in a
            copy while the others did the same. Kind ``"step"``, a row a rank and step: its share
            (``graphs, edges, hits``) and the operations and bytes of it (`tracking.roofline`),
            seconds of each phase and of all (`tracking.step`), and whether it is ``warm_up``.

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
        drawn = list(_shares(self.store, self.settings, whole, ranks))[self.settings.warm_up :]
        edges = self.store.edges
        return np.array(
            [[(len(mine), sum(edges[k] for k in mine)) for mine in shares] for shares in drawn],
            dtype=float,
        )


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
        From `build_graphs`; an epoch after the other, in an order of `seed` that is the same for
        every number of ranks and every repeat.
    batch
        Graphs a step: over all ranks in a strong study, of each rank in a weak one.
    steps, warm_up
        How many steps are timed, and how many go before that are recorded apart.
    hidden, iterations
        Of the `InteractionGNN`.
    assign
        How graphs are chosen and shared out: ``"edges"`` evens out the edges as training does,
        ``"count"`` draws them at random and deals them in turn, whatever their size.
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
    store = keep_graphs(graphs, Path(folder) / hash_graphs(graphs)[:16])
    return StepBenchmark(store, settings, workers, threads, timeout_s)


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
    rows = [{"kind": "rank", "rank": rank, **place(device), **_roof(settings.hidden, device)}]
    dealt = list(_shares(store, settings, whole, ranks))
    numbers = (number for shares in dealt for number in shares[rank])
    step.ask_all((), device)  # the first step is not to wait for who starts last
    with graphs_ahead(store, numbers, device) as graphs:
        for number, shares in enumerate(dealt):
            total = sum(store.entries[k].weight for share in shares for k in share)
            mine = [store.entries[k] for k in shares[rank]]
            taken = step.take(model, optimiser, graphs, len(mine), total, device)
            rows.append(
                {"kind": "step", "rank": rank, "step": number, "warm_up": number < settings.warm_up}
                | {"graphs": len(mine), "edges": sum(entry.edges for entry in mine)}
                | {"hits": sum(entry.nodes for entry in mine), "loss": taken.loss, **taken.seconds}
                | _work(mine, settings)
            )
    return rows


def _roof(hidden: int, device: torch.device) -> dict[str, float]:
    """What this rank reaches in the network's own product, and in a copy beyond any cache."""
    return {
        "matmul_flops_per_s": roofline.matmul_rate(width=hidden, device=device.type),
        "copy_bytes_per_s": roofline.copy_rate(_COPIED_BYTES, device=device.type),
    }


def _work(mine: Sequence[Entry], settings: StepSettings) -> dict[str, float]:
    """Operations and least bytes of a step; a gradient makes two products of each."""
    size = settings.hidden, settings.iterations
    flops = sum(roofline.flops(entry.nodes, entry.edges, *size) for entry in mine)
    moved = sum(roofline.traffic_bytes(entry.edges, *size, 4) for entry in mine)
    return {"flops": 3 * flops, "bytes": 3 * moved}


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


def _shares(
    store: GraphStore, settings: StepSettings, whole: int, ranks: int
) -> Iterator[list[list[int]]]:
    """Graph numbers of each rank in each step, warm-up included."""
    steps = _batches(store.edges, settings, whole)
    for numbers in itertools.islice(steps, settings.warm_up + settings.steps):
        if settings.assign == "edges":
            yield sampler.deal(numbers, store.edges, ranks)
        else:
            yield [numbers[rank::ranks] for rank in range(ranks)]


def _batches(edges: list[int], settings: StepSettings, whole: int) -> Iterator[list[int]]:
    """Full batches without end."""
    copies = -(-whole // len(edges))  # a weak step may take more graphs than there are
    for epoch in itertools.count():
        if settings.assign == "edges":
            drawn = sampler.batches(edges * copies, whole, settings.seed, epoch)
        else:
            drawn = sampler.random_batches(len(edges) * copies, whole, settings.seed, epoch)
        for numbers in drawn:
            if len(numbers) == whole:
                yield [number % len(edges) for number in numbers]
