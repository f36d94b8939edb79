"""Training of the edge classifier on one or many ranks, with the caller in the loop.

The loss of a step is the weighted mean over the edges of the whole batch. Each rank sums over its
part and divides by the weight of the whole, and gradients are summed over ranks: the numbers do
not depend on how many ranks share a batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
from torch_geometric.data import Data

from sml_kernel import records
from sml_kernel.tracking import ranks as rank_side
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.store import write_graphs
from sml_kernel.workers import gang

_POLL_S = 0.2


def train(
    graphs: Sequence[Data],
    validation: Sequence[Data] = (),
    *,
    model: InteractionGNN | None = None,
    hidden: int = 64,
    iterations: int = 6,
    epochs: int = 10,
    batch: int = 2,
    learning_rate: float = 3e-3,
    seed: int = 0,
    ranks: int = 1,
    workers: Any = None,
    threads: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
) -> TrainingRun:
    """Train an `InteractionGNN` to tell true segments; returns at once.

    Parameters
    ----------
    graphs, validation
        From `build_graphs`. Validation graphs are scored after each epoch.
    model
        A network to start from. None makes one of `hidden` and `iterations`.
    epochs
        Passes over the graphs.
    batch
        Graphs a step over all ranks together, at least one a rank; the last step of an epoch takes
        the few that are left.
    learning_rate
        The highest of the schedule (AdamW): a tenth of the steps up, a cosine down to zero.
    seed
        Of the weights and of the order of graphs.
    ranks
        Processes that share each batch, balanced by edges.
    workers
        What `sml_kernel.launch` gave: ranks run on them, one a worker. None: on this machine.
    threads
        Threads a rank. None shares out the cores.
    folder
        The run's folder (`sml_kernel.records.start`).
    timeout_s
        The whole training is ended after this time.

    Returns
    -------
    TrainingRun
        Iterate over it to watch; leave the loop to end the training.

    Raises
    ------
    ValueError
        No graphs, or a batch that leaves a rank without one.
    """
    if not len(graphs):
        raise ValueError("no graphs to train on")
    if not ranks <= batch <= len(graphs):
        raise ValueError(
            f"a batch of {batch} graphs: it must give each of the {ranks} ranks one, "
            f"and there are {len(graphs)} graphs"
        )
    if model is None:
        model = _new_model(graphs[0], hidden, iterations, seed)
    if hasattr(workers, "wait"):  # a gang is all or none: jobs may still be in the queue
        workers.wait(ranks)
    settings = rank_side.Settings(epochs, batch, learning_rate, seed)
    run = records.start(
        folder,
        kind="train",
        parameters={**model.settings, **settings.as_dict(), "ranks": ranks},
        seed=seed,
    )
    try:
        run.note(data_hash=write_graphs(graphs, run.folder / "graphs" / "train").hash())
        write_graphs(validation, run.folder / "graphs" / "validation")
        (run.folder / "checkpoints").mkdir()
        model.save(run.folder / "checkpoints" / rank_side.INITIAL)
        function = partial(rank_side.train_rank, folder=run.folder.absolute(), settings=settings)
        started = gang.start(function, ranks, workers=workers, timeout_s=timeout_s, threads=threads)
    except BaseException as error:
        run.finish("failed", error=repr(error))
        raise
    return TrainingRun(run, started)


class TrainingRun:
    """A training under way or done.

    Iterating gives its records as they come: dicts of kind ``"step"`` (loss, edges, seconds) and
    ``"epoch"`` (training and validation loss, edge figures). Leaving the loop ends the training;
    the last checkpoint is then the model.

    Attributes
    ----------
    folder
        The run folder: records, checkpoints, the graphs trained on.
    """

    def __init__(self, run: records.Run, ranks: gang.Gang) -> None:
        self.run, self.folder, self._gang = run, run.folder, ranks
        self._stopped = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._tail()
        except BaseException:  # the caller left the loop, or was interrupted in it
            self.stop()
            raise
        self.wait()

    def wait(self) -> TrainingRun:
        """Wait until it is done; interrupted, it ends the training.

        Raises
        ------
        GangError
            A rank failed; all were ended.
        """
        if self._stopped:
            return self
        try:
            self._agree(self._gang.wait())
        except Exception as error:
            self.run.finish("failed", error=str(error))
            raise
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the training now; what was checkpointed stays."""
        if self._gang.running():
            self._gang.stop()
            self._stopped = True
            if self.run.provenance()["status"] == "running":
                self.run.finish("stopped")

    @property
    def model(self) -> InteractionGNN:
        """The network of the last checkpoint, once the training is done."""
        self.wait()
        return InteractionGNN.load(rank_side.last_checkpoint(self.folder))

    @property
    def records(self) -> pd.DataFrame:
        """All records so far (`sml_kernel.records.read`)."""
        return self.run.rows()

    def __repr__(self) -> str:
        return f"TrainingRun({str(self.folder)!r}: {self.run.status()})"

    def _tail(self) -> Iterator[dict[str, Any]]:
        """Rows of rank 0 as they are written, until its process is gone and all are read."""
        tail = self.run.tail(rank_side.WATCHED)
        while True:
            running = self._gang.running()  # asked before reading, so that no last row is missed
            yield from tail.new()
            if not running:
                return
            time.sleep(_POLL_S)

    def _agree(self, digests: list[str]) -> None:
        if len(set(digests)) > 1:
            raise RuntimeError(f"ranks ended with different weights: {digests}")


def _new_model(graph: Data, hidden: int, iterations: int, seed: int) -> InteractionGNN:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InteractionGNN(graph.x.shape[1], graph.edge_attr.shape[1], hidden, iterations)
