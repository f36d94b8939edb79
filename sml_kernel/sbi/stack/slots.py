"""How many members train at once: as many as the cache, or the memory of a GPU, holds."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sml_kernel.sbi.stack.perceptrons import Perceptron

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_UNKNOWN_BYTES = 2 << 20  # a thread's, where the system does not tell
_MOST_BYTES = 1 << 30  # of the batches of an epoch, which are laid out in memory


def members_at_once(
    shape: Perceptron,
    batch: int,
    events: int,
    cache_bytes: int | None = None,
    device: torch.device | str = "cpu",
) -> int:
    """Members whose step stays in the cache, and whose batches stay in 1 GiB of memory.

    On a GPU: whose step and batches fill half of the memory that is free.

    Parameters
    ----------
    shape, batch
        Of the networks, and events a step.
    events
        Of training and validation, of the member that has most.
    cache_bytes
        That threads of this process may fill; None asks the system (`cache_of_threads`).
    device
        Where the members train.

    Returns
    -------
    int
        At least 1.
    """
    # a step reads features, writes each layer twice, and has three columns
    numbers = batch * (shape.inputs + 2 * sum(shape.hidden) + 3)
    step_bytes = 4 * (numbers + 6 * shape.size)  # parameters, best, gradient, Adam's three
    laid_bytes = 4 * (shape.inputs + 2) * max(events, 1)  # an epoch's batches
    device = torch.device(device)
    if device.type == "cuda":
        return max(1, torch.cuda.mem_get_info(device)[0] // 2 // (step_bytes + laid_bytes))
    if cache_bytes is None:
        cache_bytes = cache_of_threads(torch.get_num_threads())
    return max(1, min(cache_bytes // step_bytes, _MOST_BYTES // laid_bytes))


def cache_of_threads(threads: int) -> int:
    """Bytes of the largest cache that `threads` may fill: their share, as others do the same."""
    found = [_UNKNOWN_BYTES]
    for index in sorted(_SYSFS.glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        size = (index / "size").read_text().strip()
        sharing = _count((index / "shared_cpu_list").read_text())
        found.append((int(size.rstrip("KM")) << (20 if size.endswith("M") else 10)) // sharing)
    return max(found[1:] or found) * min(threads, os.cpu_count() or 1)


def _count(cpus: str) -> int:
    """CPUs in a list of Linux, as in ``0-3,8``."""
    ranges = [each.split("-") for each in cpus.strip().split(",")]
    return sum(int(each[-1]) - int(each[0]) + 1 for each in ranges)
