"""Where a run comes from: versions, commit, environment, and the process that makes it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_NAMED_VERSIONS = ("sml-kernel", "torch", "torch_geometric", "numpy", "dask", "pyacts", "pythia8mc")


def hash_files(paths: list[Path]) -> str:
    """SHA-256 over names and contents of files: the identity of a data set."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def frozen_environment() -> str:
    """Every installed distribution as ``name==version``, one a line, sorted."""
    found = {
        f"{distribution.metadata['Name']}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
    }
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def software(environment: str) -> dict[str, Any]:
    """Named versions, the hash of the frozen environment, and the commit of this package."""
    return {
        "versions": _versions(),
        "environment_hash": hashlib.sha256(environment.encode()).hexdigest(),
        "commit": _commit(),
    }


def machine() -> dict[str, Any]:
    """What this host computes with: ``cpu`` (its name), ``cores`` of this process, memory."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def process() -> dict[str, Any]:
    """Host, process id and start of this process, by which `alive` knows it again."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "pid_started": _started(pid)}


def alive(made_by: dict[str, Any]) -> bool:
    """Whether what `process` described runs still; True where this host cannot see it."""
    if made_by["host"] != socket.gethostname():
        return True
    started = made_by["pid_started"]
    return started is not None and _started(made_by["pid"]) == started


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in _NAMED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _commit() -> str | None:
    """The commit of the checkout this package runs from, ``+changed`` if it was edited."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        if head.returncode:
            return None
        edits = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+changed" if edits.stdout else "")


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: tells a reused process id apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
