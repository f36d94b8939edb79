"""The interaction network on a GPU at the size of an ITk event, against its textbook form.

Forward, training step, peak memory and the roofline, in float32, TF32 and bfloat16 under autocast:
ours, ours compiled, and the textbook. Forms take turns, so that what drifts slows all alike, and
every time is given as its ratio to the textbook under bfloat16 autocast in the same round. The roof
is what a copy and a large matrix product reach on the same device in the same run: the least time
is that of the products at the one rate or of the edge rows at the other, whichever is longer
(`sml_kernel.tracking.roofline`). Rows go into a run folder:

- ``roof``: precision, ``matmul_tflops``, ``copy_gb_s``
- ``time``: precision, form, what, ``seconds`` of each repeat
- ``summary``: median and quartiles, ratios, ``tflops``, ``gb_s``, ``roof_share``
- ``memory``: ``peak_bytes`` and ``predicted_bytes`` (`sml_kernel.tracking.memory`)
- ``failed``: what did not run, with its reason

    python benchmarks/gpu.py [--folder runs/gpu]
    python benchmarks/gpu.py --device cpu --nodes 2000 --edges 10000   # the same code, no figure
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from textbook import textbook
from torch import Tensor

from sml_kernel import records
from sml_kernel.tracking import InteractionGNN, memory
from sml_kernel.tracking.compilation import compiled
from sml_kernel.tracking.roofline import copy_rate, flops, matmul_rate, synchronise, traffic_bytes

FORMS = ("textbook", "ours", "ours compiled")
PRECISIONS = ("float32", "tf32", "bfloat16")
BASE = ("textbook", "bfloat16")
Key = tuple[str, str]
Graph = tuple[Tensor, Tensor, Tensor]
Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    given = _arguments()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here, so nothing is measured; --device cpu runs the same code without one")
        return
    on_gpu = given.device == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "cpu: not measured on a GPU"
    run = records.start(given.folder, kind="gpu", parameters={**vars(given), "device_name": name})
    print(f"{name}; records in {run.folder}")
    torch.manual_seed(given.seed)
    model = InteractionGNN(3, 6, given.hidden, given.iterations).to(given.device)
    graph = _graph(given)
    with run.writer() as writer:
        precisions = dict.fromkeys([*given.precisions, BASE[1]])
        roofs = {each: _roof(given, each, writer) for each in precisions}
        for what in ("forward", "step"):
            seconds = in_turn(given, model, graph, what, writer)
            summarise(given, what, seconds, roofs, writer)
        _memory(given, model, graph, writer)
    run.finish("done")


def in_turn(
    given: argparse.Namespace,
    model: InteractionGNN,
    graph: Graph,
    what: str,
    writer: records.Writer,
) -> dict[Key, list[float]]:
    """Seconds of each form and precision, a round after the other; what fails is recorded."""
    seconds: dict[Key, list[float]] = {key: [] for key in _keys(given)}
    forms = _forms(model, given.forms)
    for repeat in range(given.repeats + 1):  # the first round warms up, and compiles
        for form, precision in list(seconds):
            synchronise(given.device)
            start = time.perf_counter()
            try:
                _pass(forms[form], model, graph, precision, what)
                synchronise(given.device)
            except torch.OutOfMemoryError as error:
                _failed(writer, model, what, form, precision, error)
                del seconds[form, precision]
                continue
            took = time.perf_counter() - start
            if repeat:
                seconds[form, precision].append(took)
                row = {"form": form, "precision": precision, "what": what, "seconds": took}
                writer.append("time", repeat=repeat, **row)
    return seconds


def summarise(
    given: argparse.Namespace,
    what: str,
    seconds: dict[Key, list[float]],
    roofs: dict[str, dict[str, float]],
    writer: records.Writer,
) -> None:
    """Record and print medians with quartiles, ratios, and what share of the roof is reached."""
    passes = 3 if what == "step" else 1  # a gradient makes two products of each
    operations = passes * flops(given.nodes, given.edges, given.hidden, given.iterations)
    for (form, precision), each in seconds.items():
        size = 2 if precision == "bfloat16" else 4
        moved = passes * traffic_bytes(given.edges, given.hidden, given.iterations, size)
        roof = roofs[precision]
        least = max(operations / roof["matmul_flops"], moved / roof["copy_bytes_s"])
        low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
        row = {
            **{"median_s": middle, "lower_quartile_s": low, "upper_quartile_s": high},
            **{"tflops": operations / middle / 1e12, "gb_s": moved / middle / 1e9},
            "roof_share": least / middle,
            **_ratio(seconds.get(BASE), each),
        }
        writer.append("summary", form=form, precision=precision, what=what, n=len(each), **row)
        print(
            f"{what:8} {form:14} {precision:9} {middle * 1e3:9.1f} ms ({low * 1e3:.1f}–"
            f"{high * 1e3:.1f})  textbook bfloat16 / this {row['ratio']:.2f} "
            f"({row['ratio_lower']:.2f}–{row['ratio_upper']:.2f})  {row['tflops']:.3f} TFLOP/s  "
            f"{row['gb_s']:.1f} GB/s  {row['roof_share']:.0%} of the roof"
        )


def _ratio(base: list[float] | None, each: list[float]) -> dict[str, float]:
    """Quartiles of the ratios within a round; nan if the textbook did not run."""
    found = [float("nan")] * 3
    if base is not None:
        ratios = [a / b for a, b in zip(base, each, strict=True)]
        found = statistics.quantiles(ratios, n=4, method="inclusive")
    return dict(zip(("ratio_lower", "ratio", "ratio_upper"), found, strict=True))


def _pass(form: Form, model: InteractionGNN, graph: Graph, precision: str, what: str) -> Tensor:
    """Logits, after backward if it is a step."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    low = torch.autocast(graph[0].device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with low, torch.set_grad_enabled(what == "step"):
        logits = form(*graph)
    if what == "step":
        model.zero_grad()
        logits.float().sum().backward()
    return logits.detach()


def _roof(given: argparse.Namespace, precision: str, writer: records.Writer) -> dict[str, float]:
    """What a large product and a copy reach here."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    product = matmul_rate(given.square, given.square, 20, given.device, dtype)
    copied = copy_rate(given.copy_mb << 20, 20, given.device)
    row = {"matmul_tflops": product / 1e12, "copy_gb_s": copied / 1e9}
    writer.append("roof", precision=precision, **row)
    print(f"roof     {precision}: {row['matmul_tflops']:.2f} TFLOP/s, {row['copy_gb_s']:.0f} GB/s")
    return {"matmul_flops": product, "copy_bytes_s": copied}


def _memory(
    given: argparse.Namespace, model: InteractionGNN, graph: Graph, writer: records.Writer
) -> None:
    """Peak of a step beyond weights and graph; on a CPU not measured, which is said."""
    for (form, precision), what in itertools.product(_keys(given), ("forward", "step")):
        row = {"form": form, "precision": precision, "what": what, "predicted_bytes": None}
        if form == "ours":
            row["predicted_bytes"] = memory.predict(
                given.nodes,
                given.edges,
                model,
                precision="bfloat16" if precision == "bfloat16" else "float32",
                device=given.device,
                training=what == "step",
            ).arrays_bytes
        if given.device == "cpu":
            reason = "not measured on a CPU: benchmarks/network.py does, a process for each"
            writer.append("memory", peak_bytes=None, reason=reason, **row)
            continue
        model.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            _pass(_forms(model, [form])[form], model, graph, precision, what)
        except torch.OutOfMemoryError as error:
            _failed(writer, model, f"memory of a {what}", form, precision, error)
            continue
        peak = torch.cuda.max_memory_allocated() - before
        writer.append("memory", peak_bytes=peak, **row)
        print(f"memory   {form:14} {precision:9} {what:8} {peak / 1e9:.2f} GB")


def _failed(
    writer: records.Writer,
    model: InteractionGNN,
    what: str,
    form: str,
    precision: str,
    error: Exception,
) -> None:
    """Record why something has no figure, and give its memory back."""
    reason = str(error).partition("\n")[0]
    writer.append("failed", form=form, precision=precision, what=what, reason=reason)
    print(f"{what}: {form}, {precision} failed: {reason}")
    model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()


def _forms(model: InteractionGNN, names: list[str]) -> dict[str, Form]:
    forms: dict[str, Form] = {
        "textbook": lambda *graph: textbook(model, *graph),
        "ours": lambda *graph: model(*graph),
    }
    if "ours compiled" in names:
        forms["ours compiled"] = compiled(model)
    return forms


def _keys(given: argparse.Namespace) -> list[Key]:
    """What runs: the textbook under bfloat16 first, as it is what ratios are taken to."""
    keys = [BASE, *itertools.product(given.forms, given.precisions)]
    return list(dict.fromkeys(keys))


def _graph(given: argparse.Namespace) -> Graph:
    made = (
        torch.randn(given.nodes, 3),
        torch.randint(given.nodes, (2, given.edges)),
        torch.randn(given.edges, 6),
    )
    x, edge_index, edge_attr = (each.to(given.device) for each in made)
    return x, edge_index, edge_attr


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    sizes = {"nodes": 297_000, "edges": 1_690_000, "hidden": 128, "iterations": 8, "repeats": 9}
    for name, default in {**sizes, "seed": 0, "square": 8192, "copy-mb": 1024}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--folder", help="of the run; a new one below runs if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
