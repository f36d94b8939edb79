"""The doctor sees what is here, and says what to do about what is not."""

from __future__ import annotations

import importlib.metadata
import stat
from pathlib import Path

import pytest

from sml_kernel import doctor
from sml_kernel.doctor import Finding


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {each.name: each for each in doctor.report()}


def test_everything_is_looked_at_once(findings: dict[str, Finding]) -> None:
    assert list(findings) == [
        "Python",
        "packages",
        "site",
        "Slurm",
        "network interface",
        "scratch",
        "cores and memory",
        "GPU",
        "C++ compiler",
        "ACTS",
        "Pythia",
        "JupyterLab",
    ]
    assert all(each.advice for each in findings.values() if each.ok is False and each.essential)


def test_a_complete_environment_is_healthy(findings: dict[str, Finding]) -> None:
    broken = [each for each in findings.values() if each.essential and each.ok is False]
    assert not broken, doctor.as_text(broken)
    for name in ("ACTS", "Pythia", "JupyterLab"):
        assert findings[name].ok, findings[name].text
    assert importlib.metadata.version("pyacts") in findings["ACTS"].text


def test_an_unknown_site_is_a_finding_with_the_error_and_its_advice() -> None:
    finding, here = doctor._site("no-such-site")
    assert here is None
    assert finding.ok is False
    assert "no-such-site" in finding.text
    assert finding.advice
    assert not doctor.healthy([finding])


def test_other_versions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# pins\nnumpy==1.0\nno-such-package==2.0\n")
    monkeypatch.setattr(doctor, "_PINS", pins)
    finding = doctor._packages()
    assert finding.ok is False
    assert "missing: no-such-package" in finding.text
    assert f"numpy {importlib.metadata.version('numpy')} (pinned 1.0)" in finding.text


def test_without_a_compiler_models_run_eagerly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert doctor._compiler().ok is None
    assert "eager" in doctor._compiler().text
    compiler = tmp_path / "clang++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(stat.S_IRWXU)
    assert doctor._compiler().ok


@pytest.mark.parametrize(
    ("script", "ok"),
    [
        ("echo 'Slurmctld(primary) at login01 is UP'", True),
        ("echo 'Slurmctld(primary) at login01 is DOWN'; exit 1", False),
    ],
)
def test_slurm_counts_only_when_its_controller_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ok: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._slurm(None).ok is None
    for command in doctor._SLURM_COMMANDS:
        assert not doctor._slurm(None).ok
        path = tmp_path / command
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(stat.S_IRWXU)
    assert doctor._slurm(None).ok is ok


def test_a_check_that_breaks_is_a_finding() -> None:
    def check() -> Finding:
        raise OSError("disk on fire")

    finding = doctor._kept("disk", check)
    assert finding.ok is False
    assert "OSError: disk on fire" in finding.text


def test_text_has_a_line_a_finding_and_its_advice() -> None:
    text = doctor.as_text([Finding("a", True, "fine"), Finding("bcd", False, "broken", "mend it")])
    assert text.splitlines() == ["ok  a    fine", "NO  bcd  broken", "         → mend it"]
