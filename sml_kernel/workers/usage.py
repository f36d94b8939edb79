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

    The accounting lags behind the queue: it is asked again until it knows how every job that was
    sent has ended, for `patience_s` at most. ``node_hours`` are charged ones, at the rate noted
    when the job was sent. What the accounting does not tell is nan, with the reason in ``why``.
    """
    sent_jobs = run.rows("job")
    rates = {}  # node-hours charged for an hour, by job
    if len(sent_jobs):
        rates = dict(zip(sent_jobs.job_id, sent_jobs.node_hours_an_hour, strict=True))
    told, why = _accounted(name, set(rates), patience_s)
    for job in told.values():
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
    for job_id in rates.keys() - told.keys():
        writer.append("usage", job_id=job_id, elapsed_s=math.nan, node_hours=math.nan, why=why)


def _accounted(
    name: str, wanted: set[str], patience_s: float
) -> tuple[dict[str, slurm.Accounted], str]:
    """What the accounting tells of the jobs, by id, and why it may not tell of all."""
    end = time.monotonic() + patience_s
    while True:
        try:
            told = {job.job_id: job for job in slurm.history(name)}
        except slurm.SlurmError as error:
            return {}, str(error)
        ended = {job_id for job_id, job in told.items() if job.ended}
        if ended >= wanted | told.keys() or time.monotonic() > end:
            return told, f"not in the accounting within {patience_s:g} s"
        time.sleep(0.3)
