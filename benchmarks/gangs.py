"""A gang of two ranks against torchrun: from the call to the summed result, torch import included.

python benchmarks/gangs.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sml_kernel.workers import gang

SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor(float(dist.get_rank()))
dist.all_reduce(value)
assert value == 1
dist.destroy_process_group()
"""


def summed() -> float:
    import torch
    import torch.distributed as dist

    value = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(value)
    return float(value)


def by_gang() -> None:
    assert gang.run(summed, 2, threads=1) == [1.0, 1.0]


def by_torchrun(script: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, str(script)], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "summed.py"
        script.write_text(SCRIPT)
        times: dict[str, list[float]] = {"torchrun": [], "gang": []}
        for _ in range(repeats):
            times["torchrun"].append(timed(lambda: by_torchrun(script)))
            times["gang"].append(timed(by_gang))
    for name, seconds in times.items():
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        print(f"{name:10} {statistics.median(seconds):6.2f} s  (range {spread})")
    ratios = [a / b for a, b in zip(times["torchrun"], times["gang"], strict=True)]
    print(f"torchrun / gang: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


def timed(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
