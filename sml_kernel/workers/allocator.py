"""What glibc's allocator is told: large blocks are used again, not handed back to the kernel.

It hands them back by itself, and Dask tells it to keep next to nothing (its workers have
``MALLOC_TRIM_THRESHOLD_=65536``, for data frames that come and go). Each array of a loop is then
mapped and zeroed anew: half of the time of a training step, and of scoring by an ensemble.
"""

from __future__ import annotations

#: Blocks below this come from the heap: the most that glibc takes.
_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25)}

#: Of a worker, which also holds results of others: 256 MiB stay free at most.
WORKER = _HEAP | {"MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
#: Of a rank, whose every step wants the same tensors again.
RANK = _HEAP | {"MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
