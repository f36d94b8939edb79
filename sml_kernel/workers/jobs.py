"""Workers in Slurm jobs: dask-jobqueue's cluster with our text, our watcher and our watchdog."""

from __future__ import annotations

import contextlib
import functools
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, final

from sml_kernel.records import Run
from sml_kernel.workers import script, slurm, tls, usage
from sml_kernel.workers.limits import check
from sml_kernel.workers.request import Request, Shape
from sml_kernel.workers.table import table
from sml_kernel.workers.watchdog import Watchdog, cancel_until_gone

if TYPE_CHECKING:
    import pandas as pd

    from sml_kernel.workers.respawn import Loss

#: Longest that `SlurmWorkers.close` waits for its jobs to leave the queue.
CLOSE_S = 20


@final
class SlurmWorkers:
    """The Slurm side of a launch. Made whole or not at all: what fails half-way leaves nothing."""

    def __init__(self, asked: Request, run: Run, *, retries: int, encrypt: bool) -> None:
        from sml_kernel.workers.jobqueue import SLURMCluster
        from sml_kernel.workers.jobset import JobSet, Order, WorkerJob
        from sml_kernel.workers.respawn import Keeper

        self.asked = asked
        self.run = run
        self.name = f"sml-{secrets.token_hex(4)}"
        self.folder = run.folder.resolve()
        self._script = functools.partial(_text, asked, self.name, self.folder, encrypt)
        self._order = Order
        (self.folder / "logs").mkdir()
        interface = asked.site.interface
        with contextlib.ExitStack() as undo:
            undo.callback(tls.remove, self.folder)
            self.cluster = SLURMCluster(
                job_cls=WorkerJob,  # type: ignore[arg-type]  # annotated as an instance there
                name=self.name,
                order=Order(asked.shapes(asked.workers)[0]),
                write=self._script,
                interface=interface or None,
                security=tls.write(self.folder) if encrypt else None,
                # the dashboard shows everything and asks nobody who he is: loopback, where
                # Jupyter's proxy finds it
                scheduler_options={"dashboard_address": "127.0.0.1:0"}
                | ({"interface": interface} if interface else {"host": "127.0.0.1"}),
            )
            undo.callback(self.cluster.close)
            self.watchdog = Watchdog(self.name, self.folder)
            undo.pop_all()
        self.writer = run.writer("workers")
        self._scaled = 0.0
        self.queue = slurm.Queue(self.name, asked.site.poll_s)
        self.jobset = JobSet(self.cluster, self.name, self._script)
        self.keeper = Keeper(asked, self.jobset, self.queue, self.writer, retries)

    @property
    def given_up(self) -> list[Loss]:
        """Losses whose place stays empty."""
        return self.keeper.given_up

    def scale(self, workers: int) -> None:
        """Hold jobs of so many workers in all: whole jobs go or stay, new ones fill up the rest.

        Those that go are let go after the new ones are accepted: until then both count towards
        the jobs that a QOS allows at a time. What the new ones cost is printed before.

        Raises
        ------
        RequestError
            Beyond the site's limits, nothing was sent.
        SlurmError
            sbatch refused; the jobs that were held before are held still.
        """
        with self.keeper.quiet:
            held = self.jobset.held()
            stay, left = [], workers
            for name, job in held.items():
                if job.order.shape.workers <= left:
                    stay.append(name)
                    left -= job.order.shape.workers
            shapes = self.asked.shapes(left) if left else []
            if shapes:
                check(self.asked, [job.order.shape for job in held.values()] + shapes)
                print(self.asked.price(shapes, self.keeper.retries))
                for job in self.jobset.add(self._order(shape) for shape in shapes):
                    usage.sent(self.writer, self.asked, job)
            self.jobset.drop(set(held) - set(stay))
            self.keeper.given_up.clear()  # places of a request that stands no more
        self._scaled = time.monotonic()
        self.keeper.start()

    def jobs(self) -> pd.DataFrame:
        """Slurm's own words on each job, also on those that ended a short while ago."""
        held = self.jobset.held()
        newest = max([self._scaled, *(job.sent for job in held.values())])
        names = {job.job_id: name for name, job in held.items()}
        rows = []
        for job in sorted(self.queue.jobs(newer_than=newest), key=lambda job: int(job.job_id)):
            name = names.get(job.job_id)
            row = {key: getattr(job, key) for key in ("job_id", "state", "reason", "nodes")}
            row |= {"name": name or "", "node_list": job.node_list}
            left = None if job.time_left_s is None else f"{job.time_left_s}s"
            row |= {"expected_start": job.expected_start, "time_left": left}
            rows.append(row | {"workers": self.jobset.workers_of(name) if name else 0})
        return table(rows)

    def logs(self) -> dict[str, str]:
        """What each job wrote, by its id, also of jobs whose workers never connected."""
        files = sorted((self.folder / "logs").glob("*.out"))
        return {path.stem: path.read_text(errors="replace") for path in files}

    def job_script(self) -> str:
        """The texts of the jobs that are held, or would be; jobs that are alike are shown once."""
        address = self.cluster.scheduler.address
        held = self.jobset.held()
        named = {job.order.shape: name for name, job in held.items()}
        if not named:
            named = dict.fromkeys(self.asked.shapes(self.asked.workers), f"{self.name}-0")
        return "\n".join(self._script(shape, address, name) for shape, name in named.items())

    def close(self) -> None:
        """End all jobs, wait until Slurm knows none that could run, remove the keys, record."""
        self.keeper.stop()
        for job in self.jobset.held().values():
            job.forget()  # one scancel below serves all
        try:
            self.cluster.close()
        finally:
            gone = cancel_until_gone(self.name, CLOSE_S)
            tls.remove(self.folder)
            told = usage.ask(self.run, self.name)
            self.keeper.conclude(told.jobs)
            usage.append(self.writer, self.run, told)
            self.writer.close()
        if not gone:  # the watchdog stays, and goes on when this process ends
            raise slurm.SlurmError(
                f"jobs named {self.name} are still in the queue after {CLOSE_S} s: "
                f"look with squeue --me --name {self.name}"
            )
        self.watchdog.dismiss()


def _text(
    asked: Request,
    name: str,
    folder: Path,
    encrypt: bool,
    shape: Shape,
    scheduler: str,
    worker: str,
) -> str:
    return script.text(
        script.Job(asked, shape, name, worker, scheduler, str(folder), sys.executable, encrypt)
    )
