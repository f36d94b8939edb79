"""What the network needs of a machine, and what a machine gives: the two numbers of a roofline.

The least time of a pass is that of its products at the rate of a matrix product, or of its edge
rows at the rate of a copy, whichever is longer (Williams et al. 2009, doi:10.1145/1498765.1498785).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def flops(nodes: int, edges: int, hidden: int, iterations: int) -> float:
    """Operations of the products in one forward pass with the first linear map split."""
    an_edge = 2 * iterations + 2  # two an iteration, one each for encoder and decoder
    a_node = 6 * iterations + 3  # two for the ends, three and one in the update
    return 2 * hidden**2 * (an_edge * edges + a_node * nodes)


def traffic_bytes(edges: int, hidden: int, iterations: int, size: int) -> float:
    """Least bytes of edge rows that one forward pass reads and writes, at `size` bytes a number.

    With every update one kernel that reads a state and the rows of both ends and writes the state,
    and sums that read it once for each direction: six rows an edge and iteration, and one to encode
    and three to decode. Rows of nodes are left out.
    """
    return edges * hidden * size * (6 * iterations + 4)


def matmul_rate(
    rows: int = 2048,
    width: int = 128,
    repeats: int = 50,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> float:
    """FLOP/s of [rows, width] times [width, width]; median of `repeats`."""
    left = torch.randn(rows, width, device=device, dtype=dtype)
    right = torch.randn(width, width, device=device, dtype=dtype)
    out = torch.empty_like(left)
    seconds = timed(lambda: torch.mm(left, right, out=out), repeats, device)
    return 2 * rows * width * width / statistics.median(seconds)


def copy_rate(count_bytes: int, repeats: int = 20, device: str = "cpu") -> float:
    """Bytes/s that a copy reads and writes; median of `repeats`."""
    one = torch.zeros(count_bytes // 4, device=device)
    other = torch.empty_like(one)
    return 2 * one.nbytes / statistics.median(timed(lambda: other.copy_(one), repeats, device))


def timed(call: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Seconds of each call, after one that warms up; a GPU is waited for."""
    seconds = []
    for repeat in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        if repeat:
            seconds.append(time.perf_counter() - start)
    return seconds


def synchronise(device: str) -> None:
    """Wait for what the GPU still does."""
    if device == "cuda":
        torch.cuda.synchronize()
