"""A real Slurm for the tests of this folder: started once, ended if it was started here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sml_kernel.workers import slurm as commands

SCRIPT = Path(__file__).parent / "slurm.sh"


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm_mini():
    """The name of the site whose Slurm runs now."""
    if subprocess.run([SCRIPT, "status"], capture_output=True).returncode == 0:
        yield "slurm-mini"  # somebody else's: it is left running
        return
    started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True)
    if started.returncode:
        reason = (started.stderr.strip() or "slurm.sh start failed").splitlines()[-1]
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true wants a real Slurm: {reason}")
        pytest.skip(reason)
    yield "slurm-mini"
    if all(job.ended for job in commands.queue()):  # `stop` would end other people's jobs as well
        subprocess.run([SCRIPT, "stop"], check=True)


@pytest.fixture
def own_jobs(slurm_mini, tmp_path):
    """The jobs of this test that run or wait: those whose comment names a folder of its own.

    The user has other jobs, of other tests or of a demo: they are nobody's business here.
    """
    own = f"sml-kernel {tmp_path}/"
    return lambda: [
        job for job in commands.queue() if not job.ended and f"{job.comment}/".startswith(own)
    ]


@pytest.fixture(autouse=True)
def nothing_left(own_jobs):
    """Each test must leave none of its jobs behind."""
    yield
    left = own_jobs()
    commands.cancel(ids=tuple(job.job_id for job in left))
    assert not left


@pytest.fixture
def asked(slurm_mini, tmp_path):
    """A request that the site allows, to be changed and given to ``sml.launch``."""
    return {
        "site": slurm_mini,
        "gpus": 1,
        "walltime": "00:10:00",
        "account": "m1234_g",
        "qos": "regular",
        "folder": tmp_path / "run",
    }


@pytest.fixture
def small_site(tmp_path):
    """A user's own site file: nodes of one GPU, of which the same Slurm has three."""
    return _site(tmp_path / "small.toml", constraint="gpu")


@pytest.fixture
def single_node(tmp_path):
    """The same of a node that there is once: a second job waits until the first has ended."""
    return _site(tmp_path / "single.toml", constraint="gpu&hbm80g")


def _site(path, constraint):
    path.write_text(f"""
        name = "{path.stem}"
        title = "one GPU and all cores of a node"
        scheduler = "slurm"
        default_qos = "regular"
        interface = "lo"
        [nodes.gpu]
        gpus = 1
        cores = 64
        threads_per_core = 2
        memory_gib = 4
        constraint = "{constraint}"
        [qos.regular]
        submitted_jobs = 100
    """)
    return path
