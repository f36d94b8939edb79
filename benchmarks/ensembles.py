"""Many networks as one stack against the ways in which they are trained one by one.

All forms get the same events, initialisations, batches, learning rate and epochs; they stop after
the same number of steps, and the held-out loss of each stands beside its time. Forms:

- ``stack M``: M members, as many at once as `slots.members_at_once` chooses;
- ``workers M``: half of M members in each of two processes of one thread, as in a campaign on
  ``launch("laptop")``; eager then has both cores too, with ``--threads 2``;
- ``eager``: plain torch, one after another, events in memory; ``compiled``: with torch.compile;
- ``joblib``: eager networks in two processes; ``lightning``: a Trainer and a DataLoader each;
  ``sbi``: its classifiers, one after another (`one_by_one`).

Forms take turns, so that a slow minute slows all alike. A form's time is of the wall, its start-up
(imports apart, compiling included) in the first round and shown apart. A network and step is
counted alike in all. The rate of products stands beside that of one large product of this run.

    python benchmarks/ensembles.py [--features 4] [--hidden 16 16] [--batch 128] [--threads 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from one_by_one import eager, lightning, processes, sbi_loop

from sml_kernel import records
from sml_kernel.sbi.stack.batches import Sample, sample
from sml_kernel.sbi.stack.members import Member, Recipe
from sml_kernel.sbi.stack.perceptrons import Perceptron
from sml_kernel.sbi.stack.slots import members_at_once
from sml_kernel.sbi.stack.training import train

FORMS = ("stack", "workers", "eager", "compiled", "joblib", "lightning", "sbi")
NEEDS = {"joblib": ["joblib"], "lightning": ["lightning"], "sbi": ["sbi"]}
Form = Callable[[], list[float]]  # trains, and gives each network's held-out loss


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    recipe = Recipe(tuple(given.hidden), given.activation, given.batch, given.epochs, given.epochs)
    shape = Perceptron(given.features, recipe.hidden, recipe.activation)
    training = events(given.batch * given.steps, given.features, 0)
    held_out = events(given.batch * max(1, given.steps // 4), given.features, 1)
    many = len(training.x) + len(held_out.x)
    chosen = members_at_once(shape, given.batch, many, torch.device(given.device))
    product = large_product()
    print(f"{shape.size} parameters, {chosen} at once; a large product: {product:.0f} GFLOP/s")
    parameters = {**vars(given), "chosen": chosen, "product_gflops": product}
    run = records.start(given.folder, kind="ensembles", parameters=parameters)
    with run.writer("times") as writer:
        for row in measured(given, shape, training, held_out, recipe):
            writer.append("time", **row, share_of_product=row["gflops"] / product)
            print(_line(row, product))
    run.finish("done")
    print(f"recorded in {run.folder}")


def events(count: int, features: int, first: int) -> Sample:
    """Half of them shifted by 1 in the first feature: the least loss is .58173."""
    random = np.random.default_rng(first)
    classes = np.arange(count) % 2
    x = random.normal(size=(len(classes), features))
    x[:, 0] += classes
    return sample(x, classes, ids=np.arange(len(classes)) + (first << 32))


def large_product(size: int = 1024) -> float:
    """GFLOP/s of a matrix product, the best of 5."""
    matrix, out = torch.randn(size, size), torch.empty(size, size)
    return 2 * size**3 / min(_seconds(lambda: torch.mm(matrix, matrix, out=out), 5)) / 1e9


def _seconds(do: Callable[[], Any], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        do()
        times.append(time.perf_counter() - start)
    return times


def measured(
    given: argparse.Namespace,
    shape: Perceptron,
    training: Sample,
    held_out: Sample,
    recipe: Recipe,
) -> Iterator[dict[str, Any]]:
    """A row for each form."""
    forms = dict(_forms(given, training, held_out, recipe))
    times: dict[str, list[float]] = {name: [] for name in forms}
    losses: dict[str, float] = {}
    starts: dict[str, float] = {}
    for repeat in range(given.repeats + 1):
        for name, (form, count) in forms.items():
            start = time.perf_counter()
            losses[name] = statistics.mean(form())
            seconds = time.perf_counter() - start
            if repeat:
                times[name].append(seconds / (count * given.steps * given.epochs))
            else:
                starts[name] = seconds
    products = 6 * given.batch * sum(wide * out for wide, out in shape.maps)
    products -= 2 * given.batch * shape.maps[0][0] * shape.maps[0][1]  # none for the features
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        ratios = [a / b for a, b in zip(times["eager"], seconds, strict=True)]
        few, ratio, many = statistics.quantiles(ratios, n=4, method="inclusive")
        whole = middle * forms[name][1] * given.steps * given.epochs
        yield {
            "form": name,
            "step_s": middle,
            "step_s_q1": low,
            "step_s_q3": high,
            "ratio": ratio,
            "ratio_q1": few,
            "ratio_q3": many,
            "startup_s": starts[name] - whole,
            "held_out_loss": losses[name],
            "gflops": products / middle / 1e9,
        }


def _forms(
    given: argparse.Namespace, training: Sample, held_out: Sample, recipe: Recipe
) -> Iterator[tuple[str, tuple[Form, int]]]:
    """Name, what trains, and how many networks it trains; eager, the measure of all, always."""
    few = members(given.alone)
    one_by_one = {
        "eager": partial(eager, few, training, held_out, recipe),
        "compiled": partial(eager, few, training, held_out, recipe, compiled=True),
        "joblib": partial(processes, few, training, held_out, recipe),
        "lightning": partial(lightning, few, training, held_out, recipe),
        "sbi": partial(sbi_loop, few, training, held_out, recipe),
    }
    for name, form in one_by_one.items():
        if name != "eager" and name not in given.forms:
            continue
        missing = [each for each in NEEDS.get(name, []) if not importlib.util.find_spec(each)]
        if missing:
            print(f"{name}: not installed: pip install {' '.join(missing)}")
            continue
        yield name, (form, len(few))
    for count in given.members if "stack" in given.forms else []:
        form = partial(stack, members(count), training, held_out, recipe, given.device)
        yield f"stack {count}", (form, count)
    for count in given.members if "workers" in given.forms else []:
        yield (
            f"workers {count}",
            (partial(workers, members(count), training, held_out, recipe), count),
        )


def members(count: int) -> list[Member]:
    """Each with a seed of its own."""
    return [Member(seed) for seed in range(count)]


def stack(
    many: list[Member], training: Sample, held_out: Sample, recipe: Recipe, device: str
) -> list[float]:
    return [each.losses[-1] for each in train(many, training, held_out, recipe, device=device)]


def workers(many: list[Member], training: Sample, held_out: Sample, recipe: Recipe) -> list[float]:
    jobs = [_pool().submit(_half, many[k::2], training, held_out, recipe) for k in (0, 1)]
    return [loss for job in jobs for loss in job.result()]


@cache
def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


def _half(many: list[Member], training: Sample, held_out: Sample, recipe: Recipe) -> list[float]:
    torch.set_num_threads(1)
    return stack(many, training, held_out, recipe, "cpu")


def _line(row: dict[str, Any], product: float) -> str:
    return (
        f"{row['form']:10} {row['step_s'] * 1e6:8.1f} µs a network and step "
        f"({row['step_s_q1'] * 1e6:.1f}–{row['step_s_q3'] * 1e6:.1f})  eager / this "
        f"{row['ratio']:6.2f} ({row['ratio_q1']:.2f}–{row['ratio_q3']:.2f})  start-up "
        f"{row['startup_s']:5.2f} s  held-out loss {row['held_out_loss']:.5f}  "
        f"{row['gflops']:5.1f} GFLOP/s, {row['gflops'] / product:4.0%} of a large product"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 16])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--activation", default="SiLU")
    parser.add_argument("--device", default="cpu", help="of the stack")
    defaults = (
        ("features", 4),
        ("batch", 128),
        ("steps", 40),
        ("epochs", 4),
        ("alone", 4),
        ("repeats", 5),
    )
    for name, default in (*defaults, ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", help="of the record; none: a new one below runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
