"""The job's text against recorded scripts: what is sent is exactly this, no more and no less."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sml_kernel as sml
from sml_kernel.workers.request import request
from sml_kernel.workers.script import Job, text

TWO_NODES = """\
#!/bin/bash
#SBATCH --job-name=sml-0badcafe
#SBATCH --account=m1234_g
#SBATCH --qos=regular
#SBATCH --constraint=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=2
#SBATCH --time=00:10:00
#SBATCH --no-requeue
#SBATCH --output=/scratch/runs/a/logs/%j.out
#SBATCH --comment='sml-kernel /scratch/runs/a'
export OMP_NUM_THREADS=16
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_TRIM_THRESHOLD_=268435456
exec srun --kill-on-bad-exit=1 \\
  /opt/python -m sml_kernel.workers.pinned tls://127.0.0.1:8786 \\
  --name=sml-0badcafe-0 --nthreads=1 --memory-limit=62.5GiB --death-timeout=60 \\
  --dashboard-address=127.0.0.1:0 \\
  --interface=lo \\
  --local-directory="/tmp" \\
  --protocol=tls --tls-ca-file=/scratch/runs/a/tls/ca.pem --tls-cert=/scratch/runs/a/tls/cert.pem \
--tls-key=/scratch/runs/a/tls/key.pem
"""

CPUS_WITHOUT_TLS = """\
#!/bin/bash
#SBATCH --job-name=sml-0badcafe
#SBATCH --qos=debug
#SBATCH --constraint=cpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=3
#SBATCH --cpus-per-task=2
#SBATCH --time=00:30:00
#SBATCH --no-requeue
#SBATCH --output='/my runs/a/logs/%j.out'
#SBATCH --comment='sml-kernel /my runs/a'
module load conda
export OMP_NUM_THREADS=1
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_TRIM_THRESHOLD_=268435456
exec srun --kill-on-bad-exit=1 \\
  /opt/python -m sml_kernel.workers.pinned tcp://10.0.0.1:8786 \\
  --name=sml-0badcafe-0 --nthreads=1 --memory-limit=3.711GiB --death-timeout=60 \\
  --dashboard-address=127.0.0.1:0 \\
  --interface=hsn0 \\
  --local-directory="$SCRATCH"
"""


def script(asked, scheduler, folder, tls):
    (shape,) = asked.shapes(asked.workers)
    name = "sml-0badcafe"
    return text(Job(asked, shape, name, f"{name}-0", scheduler, folder, "/opt/python", tls))


def test_one_job_over_two_nodes():
    asked = request(
        sml.site("slurm-mini"),
        gpus=4,
        nodes=2,
        walltime="00:10:00",
        account="m1234_g",
        qos="regular",
    )
    assert script(asked, "tls://127.0.0.1:8786", "/scratch/runs/a", True) == TWO_NODES


def test_workers_without_gpus_and_tls_below_a_folder_with_a_space():
    asked = request(sml.site("perlmutter"), cpus=3)
    assert script(asked, "tcp://10.0.0.1:8786", "/my runs/a", False) == CPUS_WITHOUT_TLS


def test_job_script_is_that_text_with_blanks_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = sml.job_script(
        "slurm-mini", gpus=4, nodes=2, walltime="00:10:00", account="m1234_g", qos="regular"
    )
    sent = TWO_NODES.replace("/scratch/runs/a", str(Path("runs/workers-NAME").resolve()))
    sent = sent.replace("/opt/python", sys.executable).replace("127.0.0.1:8786", "SCHEDULER:PORT")
    assert shown == sent.replace("0badcafe", "NAME")
    assert list(tmp_path.iterdir()) == []


def test_jobs_of_different_sizes_are_each_shown_once():
    shown = sml.job_script("slurm-mini", gpus=7, qos="regular")
    assert shown.count("#!/bin/bash") == 2
    assert "--ntasks-per-node=4" in shown
    assert "--ntasks-per-node=3" in shown
    assert sml.job_script("slurm-mini", gpus=12, qos="regular").count("#!/bin/bash") == 1


def test_where_there_is_no_slurm_the_text_says_so():
    assert sml.job_script("laptop", cpus=2) == (
        "# laptop: 2 processes of this machine, no job is sent\n"
    )


def test_job_script_refuses_what_launch_refuses():
    with pytest.raises(ValueError, match="debug allows 00:30:00, you asked for 02:00:00"):
        sml.job_script("slurm-mini", gpus=1, walltime="02:00:00", qos="debug")
