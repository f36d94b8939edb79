"""`launch`: workers on demand, here or in Slurm jobs: the same object to the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sml_kernel import records, sites
from sml_kernel.workers import script
from sml_kernel.workers.handle import Workers
from sml_kernel.workers.limits import whole
from sml_kernel.workers.request import request


def launch(
    site: str | os.PathLike[str] | sites.Site | None = None,
    *,
    gpus: int | None = None,
    cpus: int | None = None,
    nodes: int | None = None,
    walltime: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    node_type: str | None = None,
    retries: int = 3,
    tls: bool = True,
    folder: str | os.PathLike[str] | None = None,
) -> Workers:
    """Start workers: processes of this machine, or Slurm jobs that run one process a GPU.

    Returns as soon as the jobs are sent; what is given to ``client`` waits for the first worker.
    What the request costs at most is printed before it is sent. What was used, lost and replaced
    is in the records of ``workers.run``.

    Parameters
    ----------
    site
        As for `sml_kernel.site`: a name, a path, None to detect.
    gpus
        Workers with a GPU each, pinned to it by ``CUDA_VISIBLE_DEVICES``.
    cpus
        Workers with a core each, instead. Neither given: one GPU where the site has any, else up
        to four cores.
    nodes
        Nodes that one job spans, `gpus` or `cpus` divided evenly among them. None: jobs of one
        node each, as many as are needed, which start and are replaced one by one.
    walltime
        Longest time of a job, ``[D-]HH:MM:SS``; None: the site's default.
    account, qos
        Who pays and under which terms; None or empty: the defaults of Slurm and of the site. A
        site without Slurm takes no notice of these and of `walltime`.
    node_type
        A name in ``site.nodes``; None: the first that fits.
    retries
        How often a lost job is replaced, and its replacements in turn.
    tls
        Encrypt and authenticate Dask's connections, also those of this machine: any user of a
        shared node could otherwise run code as you.
    folder
        Run folder of the records and the jobs' logs, which the nodes must see; None: a new one
        below ``runs``.

    Raises
    ------
    RequestError
        The site does not allow it; nothing was sent.
    SlurmError
        Slurm refused a job; those of this call are cancelled.
    SiteError
        No such site.
    """
    retries = whole("retries", retries, 0)
    asked = request(
        sites.site(site),
        gpus=gpus,
        cpus=cpus,
        nodes=nodes,
        walltime=walltime,
        account=account,
        qos=qos,
        node_type=node_type,
    )
    parameters = {
        "site": asked.site.name,
        "node_type": asked.node_type,
        "gpus": asked.gpus,
        "cpus": asked.cpus,
        "nodes": nodes,
        "walltime_s": asked.walltime_s,
        "account": asked.account,
        "qos": asked.qos,
        "retries": retries,
        "tls": tls,
    }
    return Workers(
        asked, records.start(folder, kind="workers", parameters=parameters), retries, tls
    )


def job_script(
    site: str | os.PathLike[str] | sites.Site | None = None,
    *,
    gpus: int | None = None,
    cpus: int | None = None,
    nodes: int | None = None,
    walltime: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    node_type: str | None = None,
    tls: bool = True,
    folder: str | os.PathLike[str] = "runs/workers-NAME",
) -> str:
    """The Slurm script that `launch` would send, without starting anything.

    Differs from what is sent in what is not known before: the job's name (``sml-NAME``), the
    scheduler's address and the run folder. Jobs that are alike are shown once.

    Parameters and errors are those of `launch`.
    """
    asked = request(
        sites.site(site),
        gpus=gpus,
        cpus=cpus,
        nodes=nodes,
        walltime=walltime,
        account=account,
        qos=qos,
        node_type=node_type,
    )
    if asked.site.scheduler == "local":
        return script.local(asked)
    scheme = "tls" if tls else "tcp"
    jobs = [
        script.Job(
            asked,
            shape,
            name="sml-NAME",
            worker="sml-NAME-0",
            scheduler=f"{scheme}://SCHEDULER:PORT",
            folder=str(Path(folder).resolve()),
            python=sys.executable,
            tls=tls,
        )
        for shape in dict.fromkeys(asked.shapes(asked.workers))
    ]
    return "\n".join(script.text(job) for job in jobs)
