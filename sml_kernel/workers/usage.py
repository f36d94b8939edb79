"""What a launch used, per account, in Slurm's own words."""

from __future__ import annotations

import math
import time
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


def append(writer: Writer, run: Run, name: str, *, patience_s: float = 5.0) -> None:
    """Append a row ``usage`` for each job of the launch: account, QOS, seconds, node-hours.

    The accounting lags behind the queue: it is asked again until all jobs have ended in it, for
    `patience_s` at most. ``node_hours`` are charged ones, by the terms noted at launch. Where there
    is no accounting, one row says so and its figures are nan.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            jobs = slurm.history(name)
        except slurm.SlurmError as error:
            writer.append("usage", job_id=None, account=None, node_hours=math.nan, why=str(error))
            return
        if all(job.ended for job in jobs) or time.monotonic() > end:
            break
        time.sleep(0.3)
    sent_jobs = run.rows("job")
    rates = (
        dict(zip(sent_jobs.job_id, sent_jobs.node_hours_an_hour, strict=True))
        if len(sent_jobs)
        else {}
    )
    for job in jobs:
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
