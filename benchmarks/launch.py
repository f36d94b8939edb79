"""From `sml.launch` of one GPU to its first connected worker, against dask-jobqueue as it comes.

Needs a Slurm of the site `slurm-mini` (``tests/slurm/slurm.sh start``, as root on Debian). Imports
are done before the clock starts. Ours draws keys and speaks TLS; dask-jobqueue's default does not.

    python benchmarks/launch.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Client

import sml_kernel as sml


def ours(folder: Path) -> float:
    start = time.perf_counter()
    asked = {"walltime": "00:10:00", "account": "m1234_g", "qos": "regular"}
    with sml.launch("slurm-mini", gpus=1, folder=folder, **asked) as workers:
        workers.client.wait_for_workers(1, timeout=60)
        return time.perf_counter() - start


def plain(folder: Path) -> float:
    start = time.perf_counter()
    directives = ["-q regular", "-C gpu", "--gpus=1"]
    with (
        SLURMCluster(
            account="m1234_g",
            cores=1,
            memory="4GiB",
            walltime="00:10:00",
            interface="lo",
            log_directory=str(folder),
            job_extra_directives=directives,
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(1)
        client.wait_for_workers(1, timeout=60)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    if shutil.which("sbatch") is None:
        sys.exit("no Slurm here: tests/slurm/slurm.sh start makes one (root on Debian)")
    times: dict[str, list[float]] = {"dask-jobqueue": [], "sml.launch": []}
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(repeats):
            times["dask-jobqueue"].append(plain(Path(name) / f"plain-{repeat}"))
            times["sml.launch"].append(ours(Path(name) / f"ours-{repeat}"))
    for what, seconds in times.items():
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        print(f"{what:14} first worker {statistics.median(seconds):5.2f} s  (range {spread})")
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"dask-jobqueue / sml.launch: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
