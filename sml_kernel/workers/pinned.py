"""Start-up of a worker in a Slurm job: ``srun python -m sml_kernel.workers.pinned ADDRESS …``.

Every task of a job gets the same command line. It takes the GPU of its place on the node, appends
its rank to the name, and becomes an ordinary Dask worker with the other arguments as they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def own_gpu(environment: Mapping[str, str]) -> str | None:
    """The GPU that is this task's own, as ``CUDA_VISIBLE_DEVICES`` names it; None without GPUs.

    Slurm lists the job's GPUs on this node, as many as it has tasks there; a task takes the one of
    its local rank.

    Raises
    ------
    RuntimeError
        The job has GPUs here, but none for this rank.
    """
    if not environment.get("SLURM_GPUS_ON_NODE"):
        return None
    gpus = [one for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    rank = int(environment["SLURM_LOCALID"])
    if rank >= len(gpus):
        shown = ",".join(gpus) or "none"
        raise RuntimeError(f"no GPU for task {rank} of this node: Slurm shows {shown}")
    return gpus[rank]


def main() -> None:
    """Pin this process, name it, and run Dask's worker."""
    gpu = own_gpu(os.environ)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    rank = os.environ["SLURM_PROCID"]
    arguments = [f"{word}-{rank}" if word.startswith("--name=") else word for word in sys.argv[1:]]
    from distributed.cli.dask_worker import main as dask_worker

    dask_worker(arguments)


# the nanny's child imports this module again under another name, and must not start a second one
if __name__ == "__main__":
    main()
