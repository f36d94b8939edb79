"""Networks trained as one stack against the same networks one after another in plain torch.

The same data, batches, initialisation and number of steps; eager torch with resident data is the
other side (torch.nn, torch.optim.Adam). Each count of members in turn, so that a slow minute slows
all alike. Prints and records CPU time of the process for a network and step, medians with
quartiles, the ratio in the same round, and the rate of products beside that of one large product.
Start-up (initialisation, weights of the bootstrap, batches) is in both; the stack also judges its
members on a batch of validation an epoch.

    python benchmarks/stack.py [--hidden 32 32] [--batch 512] [--members 1 8 64 256] [--threads 1]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sml_kernel import records
from sml_kernel.sbi.batches import Sample, Shares, sample
from sml_kernel.sbi.members import Member, Recipe
from sml_kernel.sbi.perceptrons import Perceptron
from sml_kernel.sbi.slots import members_at_once
from sml_kernel.sbi.stack import train

Form = Callable[[], None]


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    recipe = Recipe(tuple(given.hidden), given.activation, given.batch, given.epochs, given.epochs)
    shape = Perceptron(given.features, recipe.hidden, recipe.activation)
    training = events(given.batch * given.steps, given.features, 0)
    validation = events(64, given.features, 1)
    chosen = members_at_once(shape, given.batch, len(training.x))
    print(f"{shape.size} parameters; the cache holds {chosen} members of a step")
    run = records.start(given.folder, kind="stack", parameters={**vars(given), "chosen": chosen})
    with run.writer("times") as writer:
        for row in measured(given, shape, training, validation, recipe, chosen):
            writer.append("time", **row)
            print(_line(row))
    run.finish("done")
    print(f"recorded in {run.folder}")


def events(count: int, features: int, first: int) -> Sample:
    """Half of them shifted by 1 in the first feature."""
    random = np.random.default_rng(first)
    classes = np.arange(count) % 2
    x = random.normal(size=(len(classes), features))
    x[:, 0] += classes
    return sample(x, classes, ids=np.arange(len(classes)) + (first << 32))


def measured(
    given: argparse.Namespace,
    shape: Perceptron,
    training: Sample,
    validation: Sample,
    recipe: Recipe,
    chosen: int,
) -> Iterator[dict[str, Any]]:
    """A row for each number of members, at once or as many at once as the cache holds."""
    forms: dict[str, Form] = {
        "one by one": lambda: one_by_one(members(given.alone), training, recipe)
    }
    counts = {"one by one": given.alone}
    for count in given.members:
        for how, at_once in (("all at once", count), ("as chosen", chosen)):
            if how == "as chosen" and count <= chosen:
                continue
            forms[f"{count}, {how}"] = _stack(count, training, validation, recipe, at_once)
            counts[f"{count}, {how}"] = count
    times: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(given.repeats + 1):
        for name, form in forms.items():
            start = time.process_time()
            form()
            if repeat:
                spent = time.process_time() - start
                times[name].append(spent / (counts[name] * given.steps * given.epochs))
    products = 6 * given.batch * sum(wide * out for wide, out in shape.maps)
    products -= 2 * given.batch * shape.maps[0][0] * shape.maps[0][1]  # none for the features
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        ratios = [a / b for a, b in zip(times["one by one"], seconds, strict=True)]
        few, ratio, many = statistics.quantiles(ratios, n=4, method="inclusive")
        yield {
            "form": name,
            "cpu_s": middle,
            "cpu_s_q1": low,
            "cpu_s_q3": high,
            "ratio": ratio,
            "ratio_q1": few,
            "ratio_q3": many,
            "gflops": products / middle / 1e9,
        }


def members(count: int) -> list[Member]:
    """Each with a seed and a replica of its own."""
    return [Member(seed, replica=seed) for seed in range(count)]


def _stack(count: int, training: Sample, validation: Sample, recipe: Recipe, at_once: int) -> Form:
    def form() -> None:
        for each in train(members(count), training, validation, recipe, at_once=at_once):
            assert each.failure is None

    return form


def one_by_one(many: list[Member], training: Sample, recipe: Recipe) -> None:
    """The epochs of each member as a loop in plain torch does it, without validation."""
    shares = Shares(training, 0)
    for member in many:
        seen = shares.of(member)
        x, y, w = training.x[seen.rows], seen.targets, seen.weights
        torch.manual_seed(member.seed)
        net = Perceptron(x.shape[1], recipe.hidden, recipe.activation).module()
        adam = torch.optim.Adam(net.parameters(), member.learning_rate)
        generator = torch.Generator().manual_seed(member.seed)
        orders = (torch.randperm(len(x), generator=generator) for _ in range(recipe.epochs))
        for rows in itertools.chain.from_iterable(each.split(recipe.batch) for each in orders):
            adam.zero_grad()
            logits = net(x[rows]).squeeze(1)
            functional.binary_cross_entropy_with_logits(logits, y[rows], w[rows]).backward()
            adam.step()


def _line(row: dict) -> str:
    return (
        f"{row['form']:18} {row['cpu_s'] * 1e6:7.1f} µs of CPU a network and step "
        f"({row['cpu_s_q1'] * 1e6:.1f}–{row['cpu_s_q3'] * 1e6:.1f})  one by one / this "
        f"{row['ratio']:5.2f} ({row['ratio_q1']:.2f}–{row['ratio_q3']:.2f})  "
        f"{row['gflops']:5.1f} GFLOP/s"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 32])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--activation", default="SiLU")
    defaults = (
        ("features", 16),
        ("batch", 512),
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
