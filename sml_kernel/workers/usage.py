"""What a launch used, per account, in Slurm's own words."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sml_kernel.workers import slurm

if TYPE_CHECKING:
    from sml_kernel.records import Run, Writer
    from sml_kernel.workers.jobset import WorkerJob
    from sml_kernel.workers.request import Request


def sent(writer: Writer, asked: Request, job: WorkerJob) -> None:
    """Append a row ``job``: what was sent, and the node-hours that an hour of it is charged."""
    shape = job.order.shape
    writer.append(
        "job",
        job_id=job.job_id,
        name=str(job.name),
        nodes=shape.nodes,
        workers_per_node=shape.per_node,
        node_hours_an_hour=asked.node_hours(shape, 1.0),
        attempt=job.order.attempt,
        replaces=job.order.replaces,
    )


@dataclass(frozen=True)
class Told:
    """What the accounting told: its jobs by id, and why some may be missing."""

    jobs: dict[str, slurm.Accounted]
    why: str


def ask(run: Run, name: str, *, patience_s: float = 5.0) -> Told:
    """The accounting of the jobs of a launch, asked until it knows how all that were sent ended.

    It lags behind the queue by some seconds. It is asked again after 0.5 s, 1 s, 2 s, …, and not
    any more once `patience_s` are over.
    """
    rows = run.rows("job")
    wanted = set(rows.job_id) if len(rows) else set()
    end, pause_s = time.monotonic() + patience_s, 0.5
    while True:
        try:
            told = {job.job_id: job for job in slurm.history(name)}
        except slurm.SlurmError as error:
            return Told({}, str(error))
        ended = {job_id for job_id, job in told.items() if job.ended}
        if ended >= wanted | told.keys() or time.monotonic() > end:
            return Told(told, f"not in the accounting within {patience_s:g} s")
        time.sleep(pause_s)
        pause_s *= 2


def append(writer: Writer, run: Run, told: Told) -> None:
    """Append a row ``usage`` for each job of the launch: account, QOS, seconds, node-hours.

    ``node_hours`` are charged ones, at the rate noted when the job was sent. What the accounting
    does not tell is nan, with the reason in ``why``.
    """
    sent_jobs = run.rows("job")
    rates = {}  # node-hours charged for an hour, by job
    if len(sent_jobs):
        rates = dict(zip(sent_jobs.job_id, sent_jobs.node_hours_an_hour, strict=True))
    for job in told.jobs.values():
        writer.append(
            "usage",
            job_id=job.job_id,
            account=job.account,
            qos=job.qos,
            state=job.cause,
            nodes=job.nodes,
            elapsed_s=job.elapsed_s,
            node_hours=rates.get(job.job_id, math.nan) * job.elapsed_s / 3600,
        )
    for job_id in rates.keys() - told.jobs.keys():
        writer.append("usage", job_id=job_id, elapsed_s=math.nan, node_hours=math.nan, why=told.why)
