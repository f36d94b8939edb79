"""Replaces jobs that are lost — cancelled, timed out, preempted, their node failed — and says why.

Dask's `adapt` does not bring back jobs of several processes, and knows no causes. Here a thread
looks at the queue, one squeue for all jobs; a job that ended without being asked to is forgotten,
sent again under a new name within a budget, and its cause is recorded once the accounting has it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from sml_kernel.workers import slurm, usage
from sml_kernel.workers.jobset import JobSet, Order, WorkerJob
from sml_kernel.workers.request import Request

if TYPE_CHECKING:
    from sml_kernel.records import Writer

_log = logging.getLogger(__name__)
#: Longest wait for the accounting before the queue's own word is taken for the cause.
ACCOUNTING_S = 15


@dataclass(frozen=True)
class Loss:
    """A job that ended without being asked to.

    Attributes
    ----------
    job_id, order
        What was lost.
    cause
        Slurm's word for it: ``TIMEOUT``, ``CANCELLED by 1000``, ``NODE_FAIL``, …
    replaced_by
        Id of the job sent in its place; None when the budget is spent or sbatch refused.
    why_not
        Why there is no replacement; empty where there is one.
    noticed
        Monotonic time.
    """

    job_id: str
    order: Order
    cause: str
    noticed: float
    replaced_by: str | None = None
    why_not: str = ""


@final
class Keeper:
    """The thread that looks after the jobs of one launch, from `start` to `stop`."""

    def __init__(
        self, asked: Request, jobs: JobSet, queue: slurm.Queue, writer: Writer, retries: int
    ) -> None:
        self.asked = asked
        self.jobs = jobs
        self.queue = queue
        self.retries = retries
        #: Losses whose place stays empty.
        self.given_up: list[Loss] = []
        self._writer = writer
        self._unexplained: list[Loss] = []
        #: Held while jobs are dropped on purpose, so that none of them is taken for lost.
        self.quiet = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"{jobs.name}-keeper", daemon=True)

    def start(self) -> None:
        """Begin to look; again does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Replace nothing any more. Causes that are still open are for `conclude`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * slurm.TIMEOUT_S)

    def conclude(self, told: Mapping[str, slurm.Accounted]) -> None:
        """After `stop`: record the losses that are still open by what the accounting told last."""
        self._explain(told, patience_s=0)

    def _watch(self) -> None:
        silent = False
        while not self._stopping.wait(self.queue.poll_s):
            if self.jobs.cluster.status.name != "running":
                return  # closed from elsewhere
            try:
                self.look()
                silent = False
            except slurm.SlurmError as error:
                if not silent:  # once, not each second, while a controller restarts
                    _log.warning("cannot look after jobs %s for now: %s", self.jobs.name, error)
                silent = True
            except Exception:
                _log.exception("looking after jobs %s failed", self.jobs.name)

    def look(self) -> None:
        """Look once: forget and replace what is lost, record causes that are known by now."""
        with self.quiet:
            lost = self._lost()
            if lost:
                self.jobs.lose(lost)
                for job, state in lost.values():
                    self._unexplained.append(self._replace(job, state))
        if self._unexplained:
            self._explain(self._accounted(), ACCOUNTING_S)

    def _lost(self) -> dict[str, tuple[WorkerJob, str]]:
        known = {job.job_id: job for job in self.queue.jobs()}
        lost = {}
        for name, job in self.jobs.held().items():
            if job.sent >= self.queue.asked:
                continue  # sent after the queue was asked
            told = known.get(job.job_id)
            if told is None or told.ended:
                lost[name] = (job, told.state if told else "unknown to Slurm")
        return lost

    def _replace(self, job: WorkerJob, state: str) -> Loss:
        loss = Loss(job.job_id, job.order, state, time.monotonic())
        attempt = job.order.attempt + 1
        if self._stopping.is_set():
            return replace(loss, why_not="closing")
        if attempt > self.retries:
            loss = replace(loss, why_not=f"replaced {self.retries} times already")
            return self._give_up(loss)
        try:
            new = self.jobs.add([Order(job.order.shape, attempt, job.job_id)])[0]
        except slurm.SlurmError as error:
            return self._give_up(replace(loss, why_not=str(error)))
        usage.sent(self._writer, self.asked, new)
        return replace(loss, replaced_by=new.job_id)

    def _give_up(self, loss: Loss) -> Loss:
        self.given_up.append(loss)
        _log.warning(
            "job %s ended (%s) and is not replaced: %s", loss.job_id, loss.cause, loss.why_not
        )
        return loss

    def _accounted(self) -> dict[str, slurm.Accounted]:
        try:
            return {job.job_id: job for job in slurm.history(self.jobs.name)}
        except slurm.SlurmError as error:
            _log.debug("no accounting, the queue's word stands: %s", error)
            return {}

    def _explain(self, told: Mapping[str, slurm.Accounted], patience_s: float) -> None:
        """Record losses whose cause the accounting knows, or that waited long enough for it."""
        for loss in list(self._unexplained):
            known = told.get(loss.job_id)
            final = known is not None and known.ended
            if not final and time.monotonic() - loss.noticed < patience_s:
                continue
            self._unexplained.remove(loss)
            self._writer.append(
                "loss",
                job_id=loss.job_id,
                cause=known.cause if known and final else loss.cause,
                exit_code=known.exit_code if known and final else None,
                told_by="sacct" if final else "squeue",
                attempt=loss.order.attempt,
                replaced_by=loss.replaced_by,
                why_not=loss.why_not or None,
            )
