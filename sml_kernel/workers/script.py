"""The text of a Slurm job of workers: a pure function of what it is given."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sml_kernel.sites import walltime
from sml_kernel.workers import allocator
from sml_kernel.workers.request import Request, Shape


@dataclass(frozen=True)
class Job:
    """What one job of workers needs to know.

    Attributes
    ----------
    request, shape
        What was asked, and this job's share of it.
    name
        Slurm's job name: one for all jobs of a launch and for no others, so that ``scancel
        --name`` ends exactly these.
    worker
        The job's workers are called ``<worker>-0``, ``<worker>-1``, …
    scheduler
        Address of the Dask scheduler.
    folder
        Absolute path of the run folder; logs go to its ``logs``, TLS keys lie in its ``tls``.
    python
        Interpreter, as a path that exists on the nodes.
    tls
        Talk TLS, with the keys in ``<folder>/tls``.
    """

    request: Request
    shape: Shape
    name: str
    worker: str
    scheduler: str
    folder: str
    python: str
    tls: bool = True


def text(job: Job) -> str:
    """The batch script: exactly what `slurm.submit` sends."""
    lines = ["#!/bin/bash", *(f"#SBATCH --{option}" for option in _options(job))]
    lines += job.request.site.modules
    # one thread a core; Dask's own default of 1 would hold every GPU's host code to one core
    lines.append(f"export OMP_NUM_THREADS={job.request.cores_per_worker}")
    lines += [f"export {name}={value}" for name, value in allocator.WORKER.items()]
    # a worker that cannot be restarted ends its job, so that the job is seen to be lost
    lines.append("exec srun --kill-on-bad-exit=1 \\\n  " + " \\\n  ".join(_command(job)))
    return "\n".join(lines) + "\n"


def local(asked: Request) -> str:
    """What stands for the script where there is no Slurm: a comment that says so."""
    return f"# {asked.site.name}: {asked.workers} processes of this machine, no job is sent\n"


def _options(job: Job) -> list[str]:
    asked, node = job.request, job.request.node
    options = [f"job-name={job.name}"]
    if asked.account:
        options.append(f"account={asked.account}")
    options.append(f"qos={asked.qos}")
    if node.constraint:
        options.append(f"constraint={shlex.quote(node.constraint)}")
    options += [
        f"nodes={job.shape.nodes}",
        f"ntasks-per-node={job.shape.per_node}",
        f"cpus-per-task={asked.cores_per_worker * node.threads_per_core}",
    ]
    if asked.gpus:
        # a node's GPUs for all its workers, each of which then takes its own: with
        # --gpus-per-task they could not reach each other's memory, which NCCL wants
        options.append(f"gpus-per-node={job.shape.per_node}")
    return [
        *options,
        f"time={walltime.text(asked.walltime_s)}",
        "no-requeue",  # a requeued job would come back after its notebook has gone
        f"output={shlex.quote(job.folder + '/logs/%j.out')}",
        # how a job finds back to its run folder, see `leftovers`
        f"comment={shlex.quote('sml-kernel ' + job.folder)}",
    ]


def _command(job: Job) -> list[str]:
    asked, site = job.request, job.request.site
    memory_gib = asked.node.memory_gib
    share = f"{memory_gib / asked.capacity:.4g}GiB" if memory_gib else "auto"
    command = [
        f"{shlex.quote(job.python)} -m sml_kernel.workers.pinned {job.scheduler}",
        f"--name={job.worker} --nthreads=1 --memory-limit={share} --death-timeout=60",
        "--dashboard-address=127.0.0.1:0",  # it asks nobody who he is
    ]
    if site.interface:
        command.append(f"--interface={site.interface}")
    if site.scratch:
        command.append(f'--local-directory="{site.scratch}"')  # expanded on the node
    if job.tls:
        keys = shlex.quote(job.folder + "/tls")
        command.append(
            f"--protocol=tls --tls-ca-file={keys}/ca.pem --tls-cert={keys}/cert.pem "
            f"--tls-key={keys}/key.pem"
        )
    return command
