"""How much memory a rank may use: whatever limit is the tightest."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

#: What a process takes that has imported torch and computed a little: 0.25 GB were measured.
PROCESS_BYTES = 300 << 20
#: What the driver keeps on a GPU for each process.
CONTEXT_BYTES = 600 << 20
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for no limit


def available_bytes(ranks_on_host: int = 1, device: str = "cpu") -> int:
    """Bytes that one of some new ranks may use for its arrays, asked on the host where it will run.

    On a CPU, the least of the memory that is free, of what cgroups leave, and of Slurm's ``--mem``,
    shared out, less 0.3 GB that each process takes; and of the process' own limit on addresses
    (``ulimit -v``), which children inherit. On a GPU, its free memory less the driver's 0.6 GB; one
    rank a GPU.

    Parameters
    ----------
    ranks_on_host
        Ranks that share the host's memory.
    device
        ``"cpu"``, or ``"cuda"`` for the current GPU.

    Raises
    ------
    ValueError
        Fewer than one rank.
    RuntimeError
        No such GPU.
    """
    if ranks_on_host < 1:
        raise ValueError(f"{ranks_on_host} ranks on a host: at least one")
    if device == "cuda":
        import torch

        return max(0, torch.cuda.mem_get_info()[0] - CONTEXT_BYTES)
    shared = min([_free(), *_cgroups(), *_slurm()]) // ranks_on_host - PROCESS_BYTES
    return max(0, min([shared, *_addresses()]))


def _free() -> int:
    return _kilobytes("/proc/meminfo", "MemAvailable")


def _kilobytes(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"{path} has no {name}: give available_bytes yourself")


def _slurm() -> Iterator[int]:
    """What the job asked for on this node; 0 stands for all of it."""
    node = int(os.environ.get("SLURM_MEM_PER_NODE", "0"))
    cpu = int(os.environ.get("SLURM_MEM_PER_CPU", "0"))
    for megabytes in (node, cpu * int(os.environ.get("SLURM_CPUS_ON_NODE", "1"))):
        if megabytes:
            yield megabytes << 20


def _addresses() -> Iterator[int]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield soft - _kilobytes("/proc/self/status", "VmSize")


def _cgroups(root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What is left in each of this process' cgroups and those above it, of either version."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            yield from _left(root, name, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "memory", name, names)


def _left(root: Path, name: str, names: tuple[str, str, str]) -> Iterator[int]:
    """Limit less use; file pages that can be dropped at once are not counted as used."""
    limit_file, use_file, droppable = names
    folder = root / name.lstrip("/")
    for each in (folder, *folder.parents):
        if each != root and root not in each.parents:
            return
        limit = each / limit_file
        if not limit.exists():  # the root of version 2, or a folder outside the container's view
            continue
        text = limit.read_text().strip()
        if text == "max" or int(text) >= _UNLIMITED:
            continue
        counts = dict(line.split() for line in (each / "memory.stat").read_text().splitlines())
        used = int((each / use_file).read_text()) - int(counts.get(droppable, 0))
        yield max(0, int(text) - used)


def _main() -> None:
    """Print what a rank may use on this host, of a GPU if there is one, as JSON."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps({"device": device, "bytes": available_bytes(int(sys.argv[1]), device)}))


if __name__ == "__main__":
    _main()
