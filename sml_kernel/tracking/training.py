"""Training of the edge classifier on one or many ranks, with the caller in the loop.

The loss of a step is the weighted mean over the edges of the whole batch, and batches are drawn
without a look at the ranks (`step`, `sampler`): the numbers do not depend on how many there are. So
a training that was killed goes on where it was, on as many ranks as there are then (`sessions`,
`checkpoint`).
"""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch_geometric.data import Data

from sml_kernel import records
from sml_kernel.tracking import checkpoint, sessions
from sml_kernel.tracking import ranks as rank_side
from sml_kernel.tracking.capacity import check_kept, parts_of, plan_training
from sml_kernel.tracking.checkpoint import Progress
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.store import hash_graphs, keep_graphs
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
    checkpoint_every_s: float = 60.0,
    memory_bytes: int | None = None,
    timeout_s: float | None = None,
) -> TrainingRun:
    """Train an `InteractionGNN` to tell true segments, or go on with it; returns at once.

    Parameters
    ----------
    graphs, validation
        From `build_graphs`. Validation graphs are scored after each epoch.
    model
        A network to start from. None makes one of `hidden` and `iterations`.
    epochs
        Passes over the graphs.
    batch
        Graphs a step over all ranks together, at least one a rank; one step of an epoch takes the
        few that are left.
    learning_rate
        The highest of the schedule (AdamW): a tenth of the steps up, a cosine down to zero.
    seed
        Of the weights and of the order of graphs.
    ranks
        Processes that share each batch, balanced by edges (`sampler`).
    workers
        What `sml_kernel.launch` gave: ranks run on them, one a worker. None: on this machine.
    threads
        Threads a rank. None shares out the cores.
    folder
        The run's folder: new, or that of the same training, which then goes on from its last
        checkpoint; `ranks`, `workers`, `threads`, `checkpoint_every_s`, `memory_bytes` and
        `timeout_s` may be others. None: a new one.
    checkpoint_every_s
        Seconds of training that a kill may cost, about; there is a checkpoint after each epoch as
        well, and before ranks end by SIGTERM.
    memory_bytes
        What a rank may use; None asks the hosts where they will run. Where it does not do,
        internals are made again for the gradient, and graphs that are still too large split into
        sectors of φ (`split_graph`, with a warning if that cannot be exact); the record says so
        (``memory``). Parts are made when the folder is.
    timeout_s
        It is ended after this time.

    Returns
    -------
    TrainingRun
        Iterate over it to watch; leave the loop to end the training.

    Raises
    ------
    ValueError
        No graphs, a batch that leaves a rank without one, or graphs that no splitting fits into
        memory: what would fit is said.
    TrainingError
        The folder holds another training, or one that is under way.
    CheckpointError
        The folder holds this training, but none of its checkpoints is whole.

    Warns
    -----
    UserWarning
        The newest checkpoints are damaged: it goes on from one before.
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
    plan = plan_training([*graphs, *validation], model, ranks, workers, memory_bytes)
    settings = rank_side.Settings(epochs, batch, learning_rate, seed)
    parameters = {
        **model.settings,
        **settings.as_dict(),
        "ranks": ranks,
        "weights": rank_side.digest(model),
        "validation": hash_graphs(validation),
    }
    session = sessions.begin(folder, parameters, seed=seed, data_hash=hash_graphs(graphs))
    if isinstance(session, records.Run):
        return TrainingRun(session, None, None)
    try:
        session.own.note(memory=plan.text)
        for name, part in (("train", graphs), ("validation", validation)):
            store = keep_graphs(
                part,
                session.run.folder / "graphs" / name,
                parts_of(plan, model.settings["iterations"]),
            )
            check_kept(store, plan)
        start = _start(session, model, checkpoint_every_s)
        start = dataclasses.replace(start, remakes=plan.how != "as asked")
        function = partial(
            rank_side.train_rank,
            folder=session.run.folder.absolute(),
            settings=settings,
            start=start,
        )
        started = gang.start(function, ranks, workers=workers, timeout_s=timeout_s, threads=threads)
    except BaseException as error:
        session.finish("failed", error=repr(error))
        raise
    return TrainingRun(session.run, session, started)


def _start(
    session: sessions.Session, model: InteractionGNN, checkpoint_every_s: float
) -> rank_side.Start:
    """The checkpoint to go on from, the first if there is none; the record is cut down to it."""
    folder = session.run.folder / "checkpoints"
    folder.mkdir(exist_ok=True)
    if not any(folder.glob("step-*")):  # a damaged one counts: nothing begins anew unasked
        checkpoint.save(folder, model, torch.optim.AdamW(model.parameters()), Progress())
    state, damaged = checkpoint.newest(folder)
    for path, reason in damaged.items():
        path.rename(path.with_suffix(".damaged"))  # to be looked at, and not to be met again
        warnings.warn(f"{reason}; going on from {state.name}", stacklevel=3)
    superseded = sessions.supersede(session.run, checkpoint.step_of(state))
    session.own.note(
        goes_on_from=state.name, damaged=[*damaged.values()], superseded_rows=superseded
    )
    return rank_side.Start(state.name, session.number, tuple(session.folders), checkpoint_every_s)


class TrainingRun:
    """A training under way or done.

    Iterating gives its records as they come, from the first step on: dicts of kind ``"step"``
    (loss, edges, seconds of each phase), ``"epoch"`` (training and validation loss, edge figures),
    ``"checkpoint"`` and ``"rank"``. Leaving the loop ends the training, after a last checkpoint if
    its step is over within a second; that is then the model.

    Attributes
    ----------
    folder
        The run folder: records, checkpoints, the graphs trained on.
    """

    def __init__(
        self, run: records.Run, session: sessions.Session | None, ranks: gang.Gang | None
    ) -> None:
        self.run, self.folder, self._session, self._gang = run, run.folder, session, ranks
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
        if self._stopped or self._gang is None or self._session is None:
            return self
        try:
            self._agree(self._gang.wait())
        except Exception as error:
            self._session.finish("failed", error=str(error))
            raise
        except BaseException:
            self.stop()
            raise
        self._session.hold.release()
        return self

    def stop(self) -> None:
        """End the training now; what was checkpointed stays, and the same call goes on from it."""
        if self._gang is None or self._session is None:
            return
        if self._gang.running():
            self._gang.stop()
            self._stopped = True
            if self.run.provenance()["status"] == "running":
                self._session.finish("stopped")
        self._session.hold.release()

    @property
    def model(self) -> InteractionGNN:
        """The network of the last checkpoint, once the training is done."""
        self.wait()
        return checkpoint.load_model(checkpoint.newest(self.folder / "checkpoints")[0])

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
            # asked before reading, so that no last row is missed
            running = self._gang is not None and self._gang.running()
            yield from tail.new()
            if not running:
                return
            time.sleep(_POLL_S)

    def _agree(self, digests: list[str]) -> None:
        if len(set(digests)) > 1:
            raise RuntimeError(f"ranks ended with different weights: {digests}")


def _new_model(graph: Data, hidden: int, iterations: int, seed: int) -> InteractionGNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InteractionGNN(graph.x.shape[1], graph.edge_attr.shape[1], hidden, iterations)
