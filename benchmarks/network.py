"""The interaction network against its textbook form: one training step, same weights, same graph.

The textbook concatenates edge and node states, gathers and scatters; ours splits the first linear
map, so that products with node states are made once a node. Prints median times with quartiles,
their ratio, and the share of the multiplications that the split leaves.

    python benchmarks/network.py [--nodes 5000] [--edges 30000] [--hidden 64] [--repeats 11]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sml_kernel.tracking import InteractionGNN


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, given.hidden, given.iterations)
    graph = (
        torch.randn(given.nodes, 3),
        torch.randint(given.nodes, (2, given.edges)),
        torch.randn(given.edges, 6),
    )
    difference = (model(*graph) - textbook(model, *graph)).abs().max()
    print(f"largest difference of logits: {float(difference):.1e}")
    forms: dict[str, Callable[[], Tensor]] = {
        "textbook": lambda: textbook(model, *graph),
        "ours": lambda: model(*graph),
    }
    times = in_turn(forms, given.repeats)
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4)
        print(f"{name:10} {middle * 1e3:8.1f} ms  (quartiles {low * 1e3:.1f}–{high * 1e3:.1f})")
    ratios = [a / b for a, b in zip(times["textbook"], times["ours"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"textbook / ours: {middle:.2f} (quartiles {low:.2f}–{high:.2f})")
    print(f"multiplications of an edge update that are left: {work(given):.2f}")


def in_turn(forms: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Forward and backward of each form in turn, so that a slow minute slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        for name, forward in forms.items():
            start = time.perf_counter()
            forward().sum().backward()
            if repeat:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return times


def work(given: argparse.Namespace) -> float:
    """Of [3H → H] and [H → H] an edge, against [H → H] twice an edge and [2H → H] a node."""
    return (2 * given.edges + 2 * given.nodes) / (4 * given.edges)


def textbook(model: InteractionGNN, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
    """The formulas as they stand."""
    source, target = edge_index
    nodes, edges = model.node_encoder(x), model.edge_encoder(edge_attr)
    blocks = zip(model.edge_updates, model.node_updates, strict=True)
    for edge_update, node_update in blocks:
        whole = torch.cat([edges, nodes[source], nodes[target]], dim=1)
        edges = edges + edge_update.rest(edge_update.first(whole))
        arriving = torch.zeros_like(nodes).scatter_add(0, target[:, None].expand_as(edges), edges)
        leaving = torch.zeros_like(nodes).scatter_add(0, source[:, None].expand_as(edges), edges)
        nodes = nodes + node_update(torch.cat([nodes, arriving, leaving], dim=1))
    whole = torch.cat([edges, nodes[source], nodes[target]], dim=1)
    return model.decoder.rest(model.decoder.first(whole))[:, 0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("nodes", 5000), ("edges", 30000), ("hidden", 64), ("iterations", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
