"""The interaction network against its textbook form and a torch_geometric one.

Same weights, same graph, one process, each form in turn so that a slow minute slows all alike:
forward without gradients, and a training step (forward and backward). The textbook concatenates
edge and node states, gathers and scatters; the torch_geometric one does it through
`MessagePassing`. Prints medians with quartiles, ratios, the largest difference of logits, the peak
memory of a step in a process of its own, and the share of the time that the matrix products alone
would take at the rate this machine reaches on them.

    python benchmarks/network.py [--nodes 20000] [--edges 100000] [--threads 1 2] [--compiled]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from sml_kernel.tracking import InteractionGNN
from sml_kernel.tracking.compilation import compiled

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
        before = _peak_mb()
        forms[given.memory](*graph).sum().backward()
        print(_peak_mb() - before)
        return
    for threads in given.threads:
        torch.set_num_threads(threads)
        print(f"{threads} threads; matrix products reach {matmul_rate() / 1e9:.0f} GFLOP/s")
        report("forward", in_turn(forms, graph, given.repeats, backward=False), flops(given))
        report("step", in_turn(forms, graph, given.repeats, backward=True), 3 * flops(given))
    print_memory(list(forms))


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
) -> dict[str, list[float]]:
    """Seconds of each form; the first round warms up, and compares logits."""
    times: dict[str, list[float]] = {name: [] for name in forms}
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
            apart = float((logits.detach() - first).abs().max())
            print(f"  {name}: logits differ by {apart:.1e} at most")
    return times


def report(what: str, times: dict[str, list[float]], operations: float) -> None:
    """Medians, quartiles, and ratios of the runs of a round to each other."""
    floor_s = operations / matmul_rate()
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        ratios = [a / b for a, b in zip(times["textbook"], seconds, strict=True)]
        few, ratio, many = statistics.quantiles(ratios, n=4, method="inclusive")
        print(
            f"{what:8} {name:16} {middle:6.2f} s ({low:.2f}–{high:.2f})  textbook / this "
            f"{ratio:.2f} ({few:.2f}–{many:.2f})  products alone {floor_s / middle:.0%}"
        )


def matmul_rate(rows: int = 2048, width: int = 128, repeats: int = 50) -> float:
    """FLOP/s of [rows, width] times [width, width], the product that the network is made of."""
    left, right, out = torch.randn(rows, width), torch.randn(width, width), torch.empty(rows, width)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * width * width / statistics.median(seconds)


def flops(given: argparse.Namespace) -> float:
    """Operations of the products in one forward pass with the first linear map split."""
    square = 2 * given.hidden**2
    an_edge = 2 * given.iterations + 2  # two an iteration, one each for encoder and decoder
    a_node = 6 * given.iterations + 3  # two for the ends, three and one in the update
    return square * (an_edge * given.edges + a_node * given.nodes)


def print_memory(names: list[str]) -> None:
    """Peak memory of a training step of each form, above what its process had before."""
    peaks = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--memory", name], check=True, stdout=subprocess.PIPE
        )
        peaks[name] = float(done.stdout.split()[-1])
        ratio = peaks[name] / peaks["textbook"]
        print(f"memory   {name:16} {peaks[name]:6.0f} MB  of the textbook's: {ratio:.2f}")


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


class Geometric(nn.Module):
    """The same model as torch_geometric has one write it: an edge update and two propagations."""

    def __init__(self, model: InteractionGNN) -> None:
        super().__init__()
        self.model = model
        self.arriving = _Messages(flow="source_to_target")
        self.leaving = _Messages(flow="target_to_source")

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """[N, F], [2, E], [E, K] → [E] logits."""
        model = self.model
        nodes, edges = model.node_encoder(x), model.edge_encoder(edge_attr)
        for edge_update, node_update in zip(model.edge_updates, model.node_updates, strict=True):
            whole = self.arriving(x=nodes, edge_index=edge_index, edges=edges)
            edges = edges + edge_update.rest(edge_update.first(whole))
            sums = [part.sums(edge_index, edges, len(x)) for part in (self.arriving, self.leaving)]
            nodes = nodes + node_update(torch.cat([nodes, *sums], dim=1))
        whole = self.arriving(x=nodes, edge_index=edge_index, edges=edges)
        return model.decoder.rest(model.decoder.first(whole)).squeeze(1)


class _Messages(MessagePassing):
    def __init__(self, flow: str) -> None:
        super().__init__(aggr="sum", flow=flow)

    def forward(self, x: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        return self.edge_updater(edge_index, x=x, edges=edges)

    def edge_update(self, x_i: Tensor, x_j: Tensor, edges: Tensor) -> Tensor:
        return torch.cat([edges, x_j, x_i], dim=1)

    def sums(self, edge_index: Tensor, edges: Tensor, nodes: int) -> Tensor:
        return self.propagate(edge_index, edges=edges, size=(nodes, nodes))

    def message(self, edges: Tensor) -> Tensor:
        return edges


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("nodes", 20000), ("edges", 100000), ("hidden", 128), ("iterations", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--compiled", action="store_true", help="takes a minute to compile")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
