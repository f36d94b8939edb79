"""Memory that a training step or an inference takes, and what to do where it is too much.

A prediction adds up what `footprint` finds for the arrays of a pass, the graph with the order of
its edges (`segments`), and weights with their gradients and AdamW's two moments. It is compared
with measurements by a test. A network through torch.compile keeps what the compiler chooses; with
internals remade it is as predicted.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sml_kernel.tracking import footprint
from sml_kernel.tracking.available import available_bytes
from sml_kernel.tracking.model import InteractionGNN

__all__ = ["Plan", "Prediction", "available_bytes", "plan", "predict", "remade"]

PRECISIONS = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
_MARGIN = 1.15  # predictions hold within this
_FLOAT, _INDEX = 4, 8


@dataclass(frozen=True)
class Prediction:
    """Peak memory of one graph's pass, in bytes beyond what the process had before.

    Attributes
    ----------
    weights_bytes
        Weights; in training also gradients, AdamW's moments, and the message that adds gradients
        over ranks.
    graph_bytes
        Features, edges, truth and weights of the graph, and the order of its edges.
    arrays_bytes
        The most that the pass holds at any moment.
    heap_bytes
        What glibc's heap takes beyond these; 0 on a GPU.
    moment
        When that is: ``"gradient of the decoder"``.
    """

    weights_bytes: int
    graph_bytes: int
    arrays_bytes: int
    heap_bytes: int
    moment: str

    @property
    def peak_bytes(self) -> int:
        """All together."""
        return self.weights_bytes + self.graph_bytes + self.arrays_bytes + self.heap_bytes


def predict(
    nodes: int,
    edges: int,
    model: InteractionGNN,
    *,
    precision: str = "float32",
    device: str = "cpu",
    training: bool = True,
    ranks: int = 1,
) -> Prediction:
    """Predict the peak memory of a training step, or of an inference, on one graph.

    Parameters
    ----------
    nodes, edges
        Of the graph. Graphs of a batch are computed one after the other: the largest counts.
    model
        The network. It is asked for its sizes only, so that one on torch's meta device, which takes
        no memory, does as well.
    precision
        ``"float32"``, or ``"bfloat16"`` for `torch.autocast` to it.
    device
        ``"cpu"`` or ``"cuda"``; on the latter without what the driver takes for itself.
    training
        With gradients and AdamW.
    ranks
        More than one adds gradients in one message.

    Raises
    ------
    ValueError
        An unknown precision or device, or a negative size.
    """
    if precision not in PRECISIONS or device not in DEVICES:
        raise ValueError(
            f"precision {precision!r} on {device!r}: there are {', '.join(PRECISIONS)} on "
            f"{', '.join(DEVICES)}"
        )
    if min(nodes, edges) < 0:
        raise ValueError(f"a graph of {nodes} nodes and {edges} edges: neither can be negative")
    work = footprint.Pass(
        model, nodes, edges, precision == "bfloat16", device == "cpu", training, heap=False
    )
    arrays, moment = footprint.largest(footprint.calls(work))
    on_heap, _ = footprint.largest(footprint.calls(dataclasses.replace(work, heap=True)))
    weights = _FLOAT * sum(weight.numel() for weight in model.parameters())
    if training:
        weights *= 4 if ranks == 1 else 6
    return Prediction(weights, _graph_bytes(model, nodes, edges), arrays, on_heap - arrays, moment)


@dataclass(frozen=True)
class Plan:
    """What fits into memory.

    Attributes
    ----------
    how
        ``"as asked"``; ``"remade"``: with ``checkpointing=True`` (see `remade`); ``"split"``: that,
        and graphs of more than `max_edges` in parts (`split_graph`); ``"refused"``.
    max_edges
        Edges, halo included, of a graph or part that fits; 0: none does.
    parts
        At least how many parts each graph makes, in their order; a halo may make it more.
    prediction
        For the largest graph as it was asked.
    available_bytes
        What one rank may use.
    text
        All this in a sentence or two, with what would fit.
    """

    how: str
    max_edges: int
    parts: tuple[int, ...]
    prediction: Prediction
    available_bytes: int
    text: str

    def require(self) -> Plan:
        """This plan.

        Raises
        ------
        ValueError
            It is refused; the message says what would fit.
        """
        if self.how == "refused":
            raise ValueError(self.text)
        return self


def plan(
    sizes: Sequence[tuple[int, int]],
    model: InteractionGNN,
    available: int,
    *,
    precision: str = "float32",
    device: str = "cpu",
    training: bool = True,
    ranks: int = 1,
    max_parts: int = 16,
) -> Plan:
    """Find out, before anything is started, how graphs fit into memory.

    A step fits if 1.15 times its prediction does, the accuracy of predictions.

    Parameters
    ----------
    sizes
        Nodes and edges of each graph.
    available
        Bytes that one rank may use: `available_bytes`, asked where the ranks will run.
    max_parts
        Graphs of which more parts would be needed are refused; 1 never splits.
    model, precision, device, training, ranks
        See `predict`.

    Raises
    ------
    ValueError
        No graphs, or as `predict`.
    """
    if not sizes:
        raise ValueError("no graphs to plan for: give nodes and edges of each")

    def forecast(nodes: int, edges: int, network: InteractionGNN) -> Prediction:
        terms = {"precision": precision, "device": device}
        return predict(nodes, edges, network, training=training, ranks=ranks, **terms)

    nodes, edges = max(_apart(sizes), key=lambda size: forecast(size[0], size[1], model).peak_bytes)
    density = nodes / max(edges, 1)

    def fits(network: InteractionGNN, nodes: int, edges: int) -> bool:
        return _MARGIN * forecast(nodes, edges, network).peak_bytes <= available

    least = remade(model)
    prediction = forecast(nodes, edges, model)
    most = _largest(lambda count: fits(least, round(density * count), count), edges)
    parts = tuple(max(1, -(-size[1] // most)) if most else 0 for size in sizes)
    if fits(model, nodes, edges):
        how = "as asked"
        parts = (1,) * len(sizes)
    elif fits(least, nodes, edges):
        how = "remade"
    else:
        how = "split" if most and max(parts) <= max_parts else "refused"
    width = _largest(lambda hidden: fits(_of_width(least, hidden), nodes, edges), 512)
    text = _text(how, nodes, edges, most, max(parts), width, prediction, available)
    return Plan(how, most, parts, prediction, available, text)


def remade(model: InteractionGNN) -> InteractionGNN:
    """A view of a network, with the same weights, that makes internals again for the gradient."""
    view = copy.copy(model)
    view.settings = {**model.settings, "checkpointing": True}
    view.runner = dataclasses.replace(model.runner, checkpointing=True)
    return view


def _graph_bytes(model: InteractionGNN, nodes: int, edges: int) -> int:
    """x and starts; edge_index, order, ends, members; y, weight, logits and loss; features twice.

    Features are there once more in the order of the edges.
    """
    features = 2 * model.settings["edge_features"]
    a_node = _FLOAT * model.settings["node_features"] + 2 * _INDEX
    return nodes * a_node + edges * ((2 + 1 + 2 + 2) * _INDEX + (4 + features) * _FLOAT)


def _text(
    how: str,
    nodes: int,
    edges: int,
    most: int,
    parts: int,
    width: int,
    prediction: Prediction,
    available: int,
) -> str:
    asked = (
        f"the largest graph ({nodes:,} hits, {edges:,} edges) takes {_gb(prediction.peak_bytes)} "
        f"at its peak, in the {prediction.moment}; a rank may use {_gb(available)}"
    )
    if how == "as asked":
        return f"{asked}: it fits"
    if how == "remade":
        return f"{asked}: it fits with checkpointing=True, which makes internals again"
    if how == "split":
        return (
            f"{asked}: with checkpointing=True graphs of up to {most:,} edges fit, so that it is "
            f"split into {parts} parts or more"
        )
    fits = [f"graphs of up to {most:,} edges"] if most else []
    fits += [f"a width of up to {width} on this graph"] if width else []
    would = f"with checkpointing=True {' or '.join(fits)} would fit" if fits else "nothing fits"
    return f"{asked}: {would}; or give ranks more memory, or fewer ranks to a host"


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


def _apart(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """One size, the larger in both, for all that differ by a per cent: a prediction takes 2 ms."""
    cells: dict[tuple[int, int], tuple[int, int]] = {}
    for nodes, edges in sizes:
        cell = round(64 * math.log2(nodes + 1)), round(64 * math.log2(edges + 1))
        most = cells.get(cell, (0, 0))
        cells[cell] = max(nodes, most[0]), max(edges, most[1])
    return list(cells.values())


def _of_width(model: InteractionGNN, hidden: int) -> InteractionGNN:
    """The same network at another width, without memory."""
    settings = {**model.settings, "hidden": hidden, "form": model.form}
    with torch.device("meta"):
        return InteractionGNN(**settings)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, 0 if none does; fewer than one fits, fits."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
