"""The interaction network against its textbook form and a torch_geometric one (`textbook`).

Same weights, same graph, one process, each form in turn so that a slow minute slows all alike:
forward without gradients, and a training step (forward and backward). Prints and records medians
with quartiles, ratios, the largest difference of logits, the peak memory of a step in a process of
its own, and the share of the time that the matrix products alone would take at the rate this
machine reaches on them.

    python benchmarks/gnn.py [--nodes 20000] [--edges 100000] [--threads 1 2] [--compiled]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from textbook import Geometric, resident_peak_bytes, textbook
from torch import Tensor

from sml_kernel import records
from sml_kernel.tracking import InteractionGNN
from sml_kernel.tracking.compilation import compiled
from sml_kernel.tracking.memory import predict
from sml_kernel.tracking.roofline import flops, matmul_rate

Graph = tuple[Tensor, Tensor, Tensor]
Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    given = _arguments()
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, given.hidden, given.iterations)
    graph = (
        torch.randn(given.nodes, 3),
        torch.randint(given.nodes, (2, given.edges)),
        torch.randn(given.edges, 6),
    )
    forms = forms_of(model, given.compiled)
    if given.memory:
        torch.set_num_threads(2)
        before = resident_peak_bytes()
        forms[given.memory](*graph).sum().backward()
        print((resident_peak_bytes() - before) / 1e6)
        return
    operations = flops(given.nodes, given.edges, given.hidden, given.iterations)
    run = records.start(given.folder, kind="gnn", parameters=vars(given))
    with run.writer("times") as writer:
        for threads in given.threads:
            torch.set_num_threads(threads)
            rate = matmul_rate()
            print(f"{threads} threads; matrix products reach {rate / 1e9:.0f} GFLOP/s")
            for what, passes in (("forward", 1), ("step", 3)):  # a gradient makes two of each
                times, apart = in_turn(forms, graph, given.repeats, what == "step")
                for row in rows_of(times, passes * operations / rate):
                    row |= {"logits_differ": apart[row["form"]]}
                    writer.append("time", what=what, threads=threads, **row)
                    print(_line(what, row))
        foretold = predict(given.nodes, given.edges, model).peak_bytes / 1e6
        for row in memory(list(forms)):
            writer.append("memory", **row, predicted_mb=foretold if row["form"] == "ours" else None)
            print(f"memory   {row['form']:16} {row['peak_mb']:6.0f} MB, {row['of_textbook']:.2f}")
        print(f"memory   predicted for ours {foretold:.0f} MB (`sml_kernel.tracking.memory`)")
    run.finish("done")
    print(f"recorded in {run.folder}")


def forms_of(model: InteractionGNN, with_compiled: bool) -> dict[str, Form]:
    """Each form by its name, all with the weights of `model`."""
    geometric = Geometric(model)
    forms: dict[str, Form] = {
        "textbook": lambda *graph: textbook(model, *graph),
        "torch_geometric": lambda *graph: geometric(*graph),
        "ours": lambda *graph: model(*graph),
    }
    if with_compiled:
        forms["ours, compiled"] = compiled(model)
    return forms


def in_turn(
    forms: dict[str, Form], graph: Graph, repeats: int, backward: bool
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each form, and how far its logits are from the first's in the round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    apart: dict[str, float] = {}
    for repeat in range(repeats + 1):
        first = None
        for name, forward in forms.items():
            start = time.perf_counter()
            with torch.set_grad_enabled(backward):
                logits = forward(*graph)
            if backward:
                logits.sum().backward()
            if repeat:
                times[name].append(time.perf_counter() - start)
                continue
            first = logits.detach() if first is None else first
            apart[name] = float((logits.detach() - first).abs().max())
    return times, apart


def rows_of(times: dict[str, list[float]], floor_s: float) -> list[dict[str, Any]]:
    """Medians with quartiles, and of the ratio to the textbook's time in the same round."""
    rows = []
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        ratios = [a / b for a, b in zip(times["textbook"], seconds, strict=True)]
        few, ratio, many = statistics.quantiles(ratios, n=4, method="inclusive")
        row = {"form": name, "seconds": middle, "seconds_q1": low, "seconds_q3": high}
        row |= {"ratio": ratio, "ratio_q1": few, "ratio_q3": many}
        rows.append({**row, "products_alone": floor_s / middle})
    return rows


def _line(what: str, row: dict[str, Any]) -> str:
    return (
        f"{what:8} {row['form']:16} {row['seconds']:6.2f} s ({row['seconds_q1']:.2f}–"
        f"{row['seconds_q3']:.2f})  textbook / this {row['ratio']:.2f} ({row['ratio_q1']:.2f}–"
        f"{row['ratio_q3']:.2f})  products alone {row['products_alone']:.0%}  logits differ by "
        f"{row['logits_differ']:.1e} at most"
    )


def memory(names: list[str]) -> list[dict[str, Any]]:
    """Peak memory of a training step of each form, above what its process had before."""
    peaks = {}
    for name in names:
        command = [sys.executable, *sys.argv, "--memory", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        peaks[name] = float(done.stdout.split()[-1])
    return [
        {"form": name, "peak_mb": peak, "of_textbook": peak / peaks["textbook"]}
        for name, peak in peaks.items()
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("nodes", 20000), ("edges", 100000), ("hidden", 128), ("iterations", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--compiled", action="store_true", help="takes a minute to compile")
    parser.add_argument("--folder", help="of the record; none: a new one below runs")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
