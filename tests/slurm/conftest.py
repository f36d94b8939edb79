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
    subprocess.run([SCRIPT, "stop"], check=True)


@pytest.fixture(autouse=True)
def nothing_left(slurm_mini):
    """Each test must leave no job behind."""
    yield
    left = [job for job in commands.queue() if not job.ended]
    for job in left:
        commands.cancel(ids=(job.job_id,))
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
    """A user's own site file: the same Slurm, of which a job may have one GPU a node."""
    text = (Path(commands.__file__).parents[1] / "sites/slurm-mini.toml").read_text()
    path = tmp_path / "small.toml"
    path.write_text(text.replace("gpus = 4", "gpus = 1").replace("cores = 64", "cores = 8"))
    return path
