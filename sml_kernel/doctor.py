"""What is installed, which site this is, what works here, and what to do about what doesn't.

Nothing leaves this machine but a ping of the site's own Slurm controller.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sml_kernel.sites import Site

_PINS = Path(__file__).parents[1] / "constraints.txt"
_SLURM_COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")
_COMPILERS = ("g++", "c++", "clang++")
_GIB = 1 << 30
#: Ten pions through the Generic detector, in a process of its own: ACTS may end it.
_SIMULATION = """
import sys
import acts
from acts.examples import GenericDetector, RandomNumbers, Sequencer
from acts.examples.simulation import ParticleConfig, addFatras, addParticleGun

quiet = acts.logging.ERROR
detector = GenericDetector(logLevel=quiet)
random = RandomNumbers(seed=1)
sequencer = Sequencer(events=1, numThreads=1, logLevel=quiet)
gun = ParticleConfig(10, acts.PdgParticle.ePionPlus, True)
addParticleGun(sequencer, particleConfig=gun, rnd=random)
field = acts.ConstantBField(acts.Vector3(0, 0, 2 * acts.UnitConstants.T))
geometry = detector.trackingGeometry()
addFatras(sequencer, geometry, field, random, outputDirCsv=sys.argv[1], logLevel=quiet)
sequencer.run()
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name
        What was looked at, in a word or two.
    ok
        Whether it works; None: it is not here, and nothing needs it to be.
    text
        What was found.
    advice
        What to do about it, empty where there is nothing to do.
    essential
        Whether the package is of no use without it: ``sml doctor`` fails on these alone.
    """

    name: str
    ok: bool | None
    text: str
    advice: str = ""
    essential: bool = False


def report(site: str | None = None) -> list[Finding]:
    """Look at everything; takes some seconds, most of them for importing torch and simulating.

    Parameters
    ----------
    site
        The site to judge by: a name or the path of a TOML file. None detects it.

    Returns
    -------
    list of Finding
        One for each thing, whatever happened: a check that itself breaks is a finding with the
        error's text, not an exception.
    """
    found, here = _site(site)
    checks: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "packages": _packages,
        "Slurm": lambda: _slurm(here),
        "network interface": lambda: _interface(here),
        "scratch": lambda: _scratch(here),
        "cores and memory": _machine,
        "GPU": _gpu,
        "C++ compiler": _compiler,
        "ACTS": _acts,
        "Pythia": _pythia,
        "JupyterLab": _jupyterlab,
    }
    findings = [_kept(name, check) for name, check in checks.items()]
    return [*findings[:2], found, *findings[2:]]


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing essential is broken."""
    return not any(each.essential and each.ok is False for each in findings)


def as_text(findings: list[Finding]) -> str:
    """The findings a line each, with advice below those that have any."""
    marks = {True: "ok", False: "NO", None: "--"}
    width = max(len(each.name) for each in findings)
    lines = []
    for each in findings:
        lines.append(f"{marks[each.ok]}  {each.name:<{width}}  {each.text}")
        if each.advice:
            lines.append(f"    {'':<{width}}  → {each.advice}")
    return "\n".join(lines)


def _kept(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # the doctor reports on a broken machine rather than break with it
        text = f"the check failed: {type(error).__name__}: {error}"
        return Finding(name, False, text, "see whether make install repairs it")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    advice = "" if good else "make install with Python 3.11"
    return Finding("Python", good, f"{version} ({sys.executable})", advice, essential=True)


def _packages() -> Finding:
    """Compare what is installed with the pins of the checkout that this package runs from."""
    name = "packages"
    if not _PINS.is_file():
        return Finding(name, None, f"not compared: no {_PINS.name} beside this installation")
    lines = [line for line in _PINS.read_text().splitlines() if line and line[0] != "#"]
    differing, missing = [], []
    for package, _, pinned in (line.partition("==") for line in lines):
        try:
            installed = importlib.metadata.version(package).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
            continue
        if installed != pinned:
            differing.append(f"{package} {installed} (pinned {pinned})")
    if not differing and not missing:
        return Finding(name, True, f"all {len(lines)} at the pinned versions", essential=True)
    text = (
        f"missing: {', '.join(missing) or 'none'}; other versions: {', '.join(differing) or 'none'}"
    )
    # another version may well work, and some are there for the tests alone
    return Finding(name, False, text, "make install brings those of constraints.txt")


def _site(name: str | None) -> tuple[Finding, Site | None]:
    try:
        from sml_kernel.sites import site

        here = site(name)
    except Exception as error:
        text = f"not recognised: {type(error).__name__}: {error}"
        advice = "name one: sml_kernel.site('laptop'), or the path of a TOML file of your own"
        return Finding("site", False, text, advice, essential=True), None
    return Finding("site", True, f"{here.name}: {here.title}", essential=True), here


def _slurm(here: Site | None) -> Finding:
    name = "Slurm"
    wanted = here is not None and here.scheduler == "slurm"
    missing = [command for command in _SLURM_COMMANDS if not shutil.which(command)]
    if len(missing) == len(_SLURM_COMMANDS) and not wanted:
        return Finding(name, None, "no commands of it here: workers are processes of this machine")
    if missing:
        text = f"missing: {', '.join(missing)}"
        advice = "put Slurm's commands on the PATH (a module, or Debian's slurm-client)"
        return Finding(name, False, text, advice, essential=wanted)
    ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=30)
    said = " ".join((ping.stdout + ping.stderr).split())
    if ping.returncode == 0 and " is UP" in said:
        return Finding(name, True, said, essential=wanted)
    advice = "ask the facility, or for the one of the tests: tests/slurm/slurm.sh start"
    return Finding(name, False, said or "the controller gives no answer", advice, essential=wanted)


def _interface(here: Site | None) -> Finding:
    import psutil

    name = "network interface"
    if here is None:
        return Finding(name, False, "not looked for: the site is not known")
    if not here.interface:
        return Finding(name, True, "loopback is all that this site needs")
    present = sorted(psutil.net_if_addrs())
    if here.interface in present:
        return Finding(name, True, f"{here.interface} is here")
    text = f"{here.interface} is not here; there are {', '.join(present)}"
    advice = "workers on other nodes cannot be reached: name one of these in the site's TOML file"
    return Finding(name, False, text, advice)


def _scratch(here: Site | None) -> Finding:
    name = "scratch"
    if here is None:
        return Finding(name, False, "not looked for: the site is not known")
    folder = os.path.expandvars(here.scratch or tempfile.gettempdir())
    if "$" in folder:
        return Finding(name, False, f"{here.scratch} is not set", "set it, or name another folder")
    try:
        with tempfile.TemporaryFile(dir=Path(folder).expanduser()) as file:
            file.write(b"sml doctor")
    except OSError as error:
        advice = "name a folder you may write to as scratch in a TOML file of your own"
        return Finding(name, False, f"cannot be written to: {error}", advice)
    free_gib = shutil.disk_usage(Path(folder).expanduser()).free / _GIB
    advice = "" if free_gib >= 1 else "make room: events and runs are kept there"
    return Finding(name, free_gib >= 1, f"{folder} is writable, {free_gib:.0f} GiB free", advice)


def _machine() -> Finding:
    import psutil

    cores = len(os.sched_getaffinity(0))
    memory_gib = psutil.virtual_memory().available / _GIB
    enough = memory_gib >= 4
    advice = "" if enough else "the tour wants 4 GiB: close other programs, or launch workers"
    text = f"{cores} cores for this process, {memory_gib:.0f} GiB of memory available"
    return Finding("cores and memory", enough, text, advice)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("GPU", True, f"{len(names)}: {', '.join(sorted(set(names)))}")
    build = f"torch {torch.__version__}"
    if not shutil.which("nvidia-smi"):
        return Finding("GPU", None, f"none here; {build} computes on the CPU")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    seen = listed.stdout.strip().replace("\n", "; ")
    if listed.returncode or not seen:
        return Finding("GPU", None, f"none that nvidia-smi lists; {build} computes on the CPU")
    advice = "install the CUDA build of the same torch, or a driver that this build can use"
    return Finding("GPU", False, f"{seen}, but {build} cannot use it", advice)


def _compiler() -> Finding:
    name = "C++ compiler"
    for candidate in filter(None, (os.environ.get("CXX"), *_COMPILERS)):
        if path := shutil.which(candidate):
            return Finding(name, True, f"{path}: torch.compile can be used")
    advice = "for torch.compile: sudo apt-get install g++, or load the site's compiler module"
    return Finding(name, None, "none: torch.compile is not used, models run in eager mode", advice)


def _acts() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", _SIMULATION, folder], capture_output=True, text=True, timeout=120
        )
        hits = [
            max(0, len(path.read_text().splitlines()) - 1)
            for path in Path(folder).glob("*-hits.csv")
        ]
    if ran.returncode == 0 and sum(hits) > 0:
        version = importlib.metadata.version("pyacts")
        return Finding("ACTS", True, f"{version} simulates: 10 pions made {sum(hits)} hits")
    last = ran.stderr.strip().splitlines()[-1:] or [f"exit status {ran.returncode}"]
    advice = "make install; pyacts needs glibc 2.34. Without it events can still be read from files"
    return Finding("ACTS", False, f"does not simulate: {last[0]}", advice)


def _pythia() -> Finding:
    try:
        version = importlib.metadata.version("pythia8mc")
    except importlib.metadata.PackageNotFoundError:
        text = "not installed: the particle gun serves, there are no collisions"
        return Finding("Pythia", None, text, "pip install -c constraints.txt pythia8mc (GPL)")
    import pythia8mc  # noqa: F401  # that it is installed is known; this shows that it loads

    return Finding("Pythia", True, f"{version} loads")


def _jupyterlab() -> Finding:
    try:
        version = importlib.metadata.version("jupyterlab")
    except importlib.metadata.PackageNotFoundError:
        return Finding("JupyterLab", False, "not installed", "make install")
    return Finding("JupyterLab", True, f"{version}: make lab opens it")
