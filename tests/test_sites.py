"""Sites: what the files say, how one is found, and what a wrong one is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sml_kernel as sml
from sml_kernel import sites
from sml_kernel.sites import SiteError, walltime

MINIMAL = """
name = "ours"
title = "our cluster"
scheduler = "slurm"
default_qos = "normal"
[nodes.gpu]
gpus = 2
cores = 8
[qos.normal]
walltime = "01:00:00"
"""


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """No facility: neither its variables nor a slurm.conf."""
    monkeypatch.delenv("NERSC_HOST", raising=False)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    return tmp_path


def test_every_file_that_comes_with_the_package_is_read():
    assert sites.names() == ["laptop", "perlmutter", "slurm-mini"]
    assert [sml.site(name).name for name in sites.names()] == sites.names()


def test_slurm_mini_has_the_shape_of_the_script_that_starts_it():
    site = sml.site("slurm-mini")
    assert (site.nodes["gpu"].count, site.nodes["gpu"].gpus, site.nodes["cpu"].count) == (3, 4, 1)
    debug = site.qos["debug"]
    assert (debug.walltime_s, debug.nodes, debug.submitted_jobs, debug.running_jobs) == (
        1800, 8, 5, 2,
    )  # fmt: skip
    assert site.gpu_account_suffix == "_g"


def test_a_site_is_detected_by_what_its_file_says(elsewhere, monkeypatch):
    assert sml.site().name == "laptop"
    (elsewhere / "slurm.conf").write_text("# a comment\nClusterName=perlmini\n")
    assert sml.site().name == "slurm-mini"
    monkeypatch.setenv("NERSC_HOST", "perlmutter")
    with pytest.raises(SiteError, match="perlmutter and slurm-mini: name one"):
        sml.site()
    (elsewhere / "slurm.conf").unlink()
    assert sml.site().name == "perlmutter"


def test_a_path_reads_the_users_own(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(MINIMAL)
    assert sml.site(path).nodes["gpu"].gpus == 2
    assert sml.site(sml.site(str(path))).title == "our cluster"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpus = 2", "gpu = 2", r"unknown key nodes\.gpu\.gpu; known: .*gpus.*memory_gib"),
        ("title", "tittle", r"unknown key tittle; known: .*title"),
        ('title = "our cluster"', "", "the key title is missing"),
        ("gpus = 2", 'gpus = "2"', r"nodes\.gpu\.gpus = '2' must be of type int"),
        ('"01:00:00"', '"60"', "'60' is no wall time: write it as HH:MM:SS"),
        ('"slurm"', '"pbs"', "scheduler 'pbs' is not known; known: local, slurm"),
        ('"normal"', '"other"', "default_qos 'other' is none of normal"),
        ("[nodes.gpu]", "[nodes.gpu", "not TOML"),
        ("gpus = 2", "gpus = -2", r"nodes\.gpu: gpus = -2 must be 0 or more"),
        ("cores = 8", "cores = 0", r"nodes\.gpu: cores = 0 must be 1 or more"),
        ("cores = 8", "memory_gib = 0", r"memory_gib = 0\.0 must be more than 0"),
        ("[nodes.gpu]", "poll_s = -1\n[nodes.gpu]", r"poll_s = -1\.0 must be more than 0"),
        ('"01:00:00"', '"01:00:00"\nnodes = 0', r"qos\.normal: nodes = 0 must be 1 or more"),
        ("our cluster", "unser Großrechner", "byte .* is not UTF-8"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path, old, new, message):
    path = tmp_path / "ours.toml"
    path.write_text(MINIMAL.replace(old, new), encoding="latin-1")
    with pytest.raises(SiteError, match=message) as caught:
        sml.site(path)
    assert str(path) in str(caught.value)


def test_unknown_names_list_the_known():
    with pytest.raises(SiteError, match="unknown site 'cori'; known: laptop, perlmutter"):
        sml.site("cori")
    with pytest.raises(SiteError, match="no site file"):
        sml.site("nowhere/site.toml")
    with pytest.raises(SiteError, match="/tmp cannot be read as a site file: Is a directory"):
        sml.site("/tmp")


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:30:00", 1800), ("2-00:00:00", 172800), ("00:00:01", 1)]
)
def test_walltimes_come_back_as_they_were_written(text, seconds):
    assert walltime.parse(text) == seconds
    assert walltime.text(seconds) == text


@pytest.mark.parametrize("text", ["30", "30:00", "00:61:00", "00:00:00", "", None])
def test_ambiguous_walltimes_are_refused(text):
    with pytest.raises(ValueError, match="wall time"):
        walltime.parse(text)


def test_reading_a_site_imports_nothing_heavy():
    code = (
        "import sys, sml_kernel; sml_kernel.site('perlmutter');"
        "print([name for name in ('pandas', 'numpy', 'dask', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
