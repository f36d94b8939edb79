"""One set of versions: constraints.txt, pyproject.toml, environment.yml and what is installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
#: What conda-forge calls differently from PyPI.
PYPI_NAMES = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "pytorch": "torch",
    "pytorch-geometric": "torch-geometric",
}


def pins() -> dict[str, str]:
    """Canonical name → version of every line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in found}


def requirements() -> list[Requirement]:
    """What pyproject.toml names, its extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return [Requirement(line) for line in lines]


def conda_file(path: str = "environment.yml") -> tuple[list[str], list[str]]:
    """The specs for conda and those of the ``pip:`` block."""
    lines = yaml.safe_load((ROOT / path).read_text())["dependencies"]
    (for_pip,) = [line["pip"] for line in lines if isinstance(line, dict)]
    return [line for line in lines if isinstance(line, str)], for_pip


def conda_versions() -> dict[str, str]:
    """Canonical PyPI name → version, of both blocks."""
    specs, for_pip = conda_file()
    exact = [spec.split("=") for spec in specs if spec not in ("pip", "python=3.11")]
    versions = {canonicalize_name(name): version for name, version in exact}
    versions = {PYPI_NAMES.get(name, name): version for name, version in versions.items()}
    for line in for_pip:
        if line != "-e .":
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            versions[canonicalize_name(requirement.name)] = specifier.version
    return versions


def needed(names: list[Requirement]) -> dict[str, Requirement]:
    """All that `names` need, directly or not, as the installed distributions say."""
    found: dict[str, Requirement] = {}
    extras: dict[str, set[str]] = {}
    queue = list(names)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in found and requirement.extras <= extras[name]:
            continue
        found[name] = requirement
        extras[name] = extras.get(name, set()) | requirement.extras
        for line in importlib.metadata.requires(name) or []:
            below = Requirement(line)
            chosen = ["", *requirement.extras]
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in chosen):
                queue.append(below)
    return found


def test_constraints_pin_all_that_the_project_needs() -> None:
    missing = sorted(set(needed(requirements())) - set(pins()))
    assert not missing, f"add to constraints.txt: {missing}"


def test_pins_are_exact_and_portable() -> None:
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())
    assert pins()["torch"] == "2.13.0"
    assert pins()["pythia8mc"] == "8.317.2"


def test_installed_versions_are_the_pinned_ones() -> None:
    installed = {
        canonicalize_name(each.name): each.version.partition("+")[0]
        for each in importlib.metadata.distributions()
    }
    differing = {
        name: (installed[name], version)
        for name, version in pins().items()
        if name in installed and installed[name] != version
    }
    assert not differing, f"run make install: (installed, pinned) differ: {differing}"
    assert set(map(canonicalize_name, needed(requirements()))) <= set(installed)


def test_conda_names_every_requirement_at_the_pinned_version() -> None:
    named = conda_versions()
    assert set(named) == {canonicalize_name(each.name) for each in requirements()}
    assert named == {name: pins()[name] for name in named}


def test_conda_extras_are_those_of_the_project() -> None:
    extras = {each.name: each.extras for each in requirements() if each.extras}
    _, for_pip = conda_file()
    from_pip = {each.name: each.extras for each in map(Requirement, for_pip[:-1]) if each.extras}
    assert from_pip == extras  # a conda package has no extras, so these must come through pip
    assert for_pip[-1] == "-e ."


def test_every_conda_spec_is_understood_by_conda_and_holds_here() -> None:
    from rattler import MatchSpec, Version, VersionSpec

    versions = {**pins(), "python": ".".join(map(str, sys.version_info[:3]))}
    for text in conda_file()[0]:
        spec = MatchSpec(text)
        assert spec.name is not None
        if text == "pip":
            continue
        name = canonicalize_name(spec.name.normalized)
        version = versions[PYPI_NAMES.get(name, name)]
        assert spec.version is not None, f"{text} takes any version"
        assert VersionSpec(spec.version).matches(Version(version)), f"{text}, here {version}"


def test_binder_has_the_same_packages_and_installs_the_project_itself() -> None:
    specs, for_pip = conda_file()
    assert conda_file("binder/environment.yml") == (specs, for_pip[:-1])
    post_build = ROOT / "binder" / "postBuild"
    assert "pip install --no-cache-dir --no-deps -e ." in post_build.read_text()
    assert os.access(post_build, os.X_OK)


def test_binder_builds_with_python_3_11() -> None:
    command = Path(sys.executable).with_name("jupyter-repo2docker")
    program = str(command) if command.exists() else shutil.which("jupyter-repo2docker")
    if program is None:
        line = "jupyter-repo2docker is missing: pip install -c constraints.txt jupyter-repo2docker"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(line)
    ran = subprocess.run(
        [program, "--no-build", "--debug", str(ROOT)], capture_output=True, text=True, check=True
    )
    said = ran.stdout + ran.stderr
    assert "environment for python=3.11" in said
    assert '--file "binder/environment.yml"' in said
