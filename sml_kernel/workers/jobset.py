"""The jobs of one launch, held by dask-jobqueue's cluster but sent, named and counted by us."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from sml_kernel.workers import slurm
from sml_kernel.workers.jobqueue import SLURMJob
from sml_kernel.workers.request import Shape

if TYPE_CHECKING:
    from sml_kernel.workers.jobqueue import SLURMCluster

#: Scheduler address and worker name to the text of a job.
Write = Callable[[Shape, str, str], str]
#: Longest that workers which are let go may take to hand their results to others.
RETIRE_S = 10


@dataclass(frozen=True)
class Order:
    """A job to be sent: the `attempt`-th to fill its place, after the job of id `replaces`."""

    shape: Shape
    attempt: int = 0
    replaces: str | None = None


@final
class WorkerJob(SLURMJob):
    """One Slurm job of several workers: dask-jobqueue's hook, with our text and our commands.

    Attributes
    ----------
    job_id
        Slurm's id; None until it is sent, and when sbatch refused.
    sent
        Monotonic time at which sbatch answered.
    order
        What was ordered.
    """

    def __init__(
        self,
        scheduler: str | None = None,
        name: str | None = None,
        *,
        order: Order,
        write: Write,
        config_name: str | None = None,
        interface: str | None = None,
        protocol: str | None = None,
        security: object = None,
    ) -> None:
        workers = order.shape.workers
        super().__init__(
            scheduler,
            name,
            config_name=config_name,
            cores=workers,
            memory="1GiB",
            processes=workers,
        )
        self.order = order
        self.sent = 0.0
        self._write = write

    def job_script(self) -> str:
        """The text that `start` sends."""
        return self._write(self.order.shape, str(self.scheduler), str(self.name))

    async def start(self) -> None:
        try:
            self.job_id = await asyncio.to_thread(slurm.submit, self.job_script())
        except BaseException:
            self.status = Status.failed
            raise
        self.sent = time.monotonic()
        await ProcessInterface.start(self)

    async def close(self) -> None:
        if self.job_id is not None and self.status == Status.running:
            await asyncio.to_thread(slurm.cancel, ids=(self.job_id,))
        await ProcessInterface.close(self)

    def forget(self) -> None:
        """Slurm has ended it: there is nothing left to cancel."""
        self.status = Status.closed


@final
class JobSet:
    """Adds, drops and lists jobs of a cluster. May be called from any thread."""

    def __init__(self, cluster: SLURMCluster, name: str, write: Write) -> None:
        self.cluster = cluster
        self.name = name
        self._write = write
        self._numbers = itertools.count()

    def held(self) -> dict[str, WorkerJob]:
        """Jobs that are wanted and were sent, by the name of their workers."""
        wanted = self.cluster.worker_spec
        jobs = dict(self.cluster.workers)
        return {name: job for name, job in jobs.items() if name in wanted and job.job_id}

    def add(self, orders: Iterable[Order]) -> list[WorkerJob]:
        """Send jobs, all or none.

        Raises
        ------
        SlurmError
            sbatch refused one; the others of this call are cancelled.
        """
        return self.cluster.sync(self._add, list(orders))

    def drop(self, names: Iterable[str]) -> None:
        """Let jobs go that are no longer wanted: their workers hand over results, then scancel."""
        self.cluster.sync(self._drop, list(names))

    def lose(self, names: Iterable[str]) -> None:
        """Forget jobs that Slurm has ended, and their workers, so that tasks run elsewhere."""
        self.cluster.sync(self._lose, list(names))

    def workers_of(self, name: str) -> int:
        """How many workers of a job are connected."""
        return len(self._addresses([name]))

    async def _add(self, orders: list[Order]) -> list[WorkerJob]:
        names = []
        for order in orders:
            name = f"{self.name}-{next(self._numbers)}"  # never an old name: its traces live on
            self.cluster.worker_spec[name] = {
                "cls": WorkerJob,
                "options": {"order": order, "write": self._write},
                "group": [f"-{rank}" for rank in range(order.shape.workers)],
            }
            names.append(name)
        try:
            await self.cluster
        except BaseException:
            await self._drop(names)
            raise
        return [self.cluster.workers[name] for name in names]

    async def _drop(self, names: list[str]) -> None:
        addresses = self._addresses(names)
        for name in names:
            self.cluster.worker_spec.pop(name, None)
        if addresses:
            retire = self.cluster.scheduler.retire_workers(workers=addresses, close_workers=True)
            # past the time a worker is busy with a long task, which will run again elsewhere
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(retire, RETIRE_S)
        await self.cluster

    async def _lose(self, names: list[str]) -> None:
        addresses = self._addresses(names)
        for name in names:
            self.cluster.worker_spec.pop(name, None)
            job: Any = self.cluster.workers.pop(name, None)
            if job is not None:
                job.forget()
        for address in addresses:  # a node that failed says no goodbye: tasks would wait for it
            await self.cluster.scheduler.remove_worker(address, stimulus_id="job-lost", close=False)

    def _addresses(self, names: Iterable[str]) -> list[str]:
        jobs = set(names)
        workers = list(self.cluster.scheduler.workers.values())
        return [one.address for one in workers if str(one.name).rpartition("-")[0] in jobs]
