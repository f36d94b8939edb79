"""Which arrays a pass of a network holds at which moment, and how many bytes they are.

A network is a chain of perceptrons on rows (`model`, `runner`, `blocks`): encoders, an update of
edges and one of nodes an iteration, the decoder. With N nodes, E edges, width H and I iterations,
a call in the usual form (two layers, residual, sums)

- *saves* until its gradient is made,

  - when remade, what goes into it. Edges: their states E·H, the table of ends 2N·H, and the node
    states N·H that the table is made of. Nodes: states and sums, 3N·H. An iteration: E·H + 5N·H.
  - when kept, for each layer what went into its norm and its activation too, and into its linear
    map: 5 arrays for two layers. Nodes and sums are copied side by side (3N·H), and no table is
    kept. An iteration: 6E·H + 9N·H.

- *holds while it runs* its result and the rows or the table of ends; while its gradient is made,
  that of its result and those of all that went in, for edges 3E·H.

Backward begins when everything is saved, and frees as it goes, so that the peak is at its first
calls: about (I + 3)E·H + (5I + 5)N·H numbers when remade, (6I + 10)E·H + (9I + 8)N·H when kept.
Here every call is followed instead, so that any `Form`, sizes of which some arrays are kept and
some remade, and inference come out of the same lines.

A number has 4 bytes, under bfloat16 on a CPU 2. On a GPU autocast keeps states, norms and
activations in float32, and only what goes into products in bfloat16.

On a CPU glibc maps arrays of `MAPPED_BYTES` one by one and gives them back. Smaller ones it cuts
from a heap, where what was freed does not always fit what comes next: after some steps the heap was
1.3 to 1.8 times the arrays in it where internals were kept, 1.15 to 1.3 times where remade. It is
not the same twice: one case of kept internals took 305, 320 and 363 MB in three runs. The factors
here are the middle of what was measured, no derivation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.runner import CACHED_ROWS, LARGE_BYTES, OnEnds

_SAVES_RESULT = (nn.ReLU, nn.Tanh, nn.Sigmoid)  # other activations save what goes in
_STATISTICS = 8  # bytes a row that a norm saves: mean and width, float32
#: From which an array has pages of its own: ranks set it so, and glibc arrives there by itself.
MAPPED_BYTES = 1 << 25
_KEPT_ON_HEAP, _REMADE_ON_HEAP = 1.58, 1.25


@dataclass(frozen=True)
class Call:
    """One perceptron in a pass.

    Attributes
    ----------
    name
        What it does, for people.
    saved
        Bytes of each array that lives until the gradient is made. Arrays of the same name in
        several calls are one.
    forward, backward
        Bytes beyond those saved by then, at most, while it runs and while its gradient is made.
    """

    name: str
    saved: Mapping[str, int]
    forward: int
    backward: int


@dataclass(frozen=True)
class Pass:
    """A pass of a network over a graph.

    Attributes
    ----------
    model
        May be on torch's meta device: its weights are not read.
    nodes, edges
        N and E.
    bfloat16
        Under `torch.autocast`.
    on_cpu
        Else on a GPU.
    training
        With gradients.
    heap
        Count what glibc's heap takes beyond the arrays in it.
    """

    model: InteractionGNN
    nodes: int
    edges: int
    bfloat16: bool
    on_cpu: bool
    training: bool
    heap: bool

    @property
    def state(self) -> int:
        """Bytes of a number in states, norms and activations."""
        return 2 if self.bfloat16 and self.on_cpu else 4

    @property
    def product(self) -> int:
        """Bytes of a number that goes into a matrix product, or comes out of it."""
        return 2 if self.bfloat16 else 4


def largest(calls: Iterable[Call]) -> tuple[int, str]:
    """The most bytes held at any moment of a pass, and when: ``"gradient of the decoder"``."""
    held: dict[str, int] = {}
    found = (0, "")
    for call in calls:
        held |= call.saved
        total = sum(held.values())
        found = max(found, (total + call.forward, call.name))
        if call.saved:
            found = max(found, (total + call.backward, f"gradient of the {call.name}"))
    return found


def calls(work: Pass) -> Iterator[Call]:
    """The calls of `InteractionGNN.forward` in order."""
    model, form = work.model, work.model.form
    hidden, concat = model.settings["hidden"], form.skip == "concat"
    width = form.states * hidden
    last = model.settings["iterations"] - 1
    reduced = 2 * len(model.aggregations) * hidden
    features = {"x": model.settings["node_features"]}
    yield _rows(work, "node encoder", model.node_encoder, work.nodes, features)
    if isinstance(model.edge_encoder, OnEnds):
        yield _edges(work, "edge encoder", model.edge_encoder, {}, ("nodes 0", hidden))
    else:
        features = {"features": model.settings["edge_features"]}
        yield _rows(work, "edge encoder", model.edge_encoder, work.edges, features)
    node, edge = 0, 0
    turns = ("nodes", "edges") if form.nodes_first else ("edges", "nodes")
    for step, turn in itertools.product(range(last + 1), turns):
        block = step % len(model.edge_updates)
        seen = f"{turn} see {step}" if concat else f"nodes {node}"
        name = f"update of {turn}, iteration {step + 1}"
        if turn == "edges":
            states = {f"edges {edge}": hidden} | ({"edges 0 again": hidden} if concat else {})
            collects = not (step == last and form.nodes_first)
            yield _edges(work, name, model.edge_updates[block], states, (seen, width), collects)
            edge += 1
        elif step < last or form.decodes_ends or form.nodes_first:
            states = {seen: width, f"sums {step}": reduced}
            update = _rows(work, name, model.node_updates[block], work.nodes, states)
            yield _reducing(work, update, step, f"edges {edge}")
            node += 1
    if isinstance(model.decoder, OnEnds):
        ends = (f"nodes {node}", hidden)
        yield _edges(work, "decoder", model.decoder, {f"edges {edge}": hidden}, ends)
    else:
        yield _rows(work, "decoder", model.decoder, work.edges, {f"edges {edge}": hidden})


def _rows(work: Pass, name: str, module: nn.Module, count: int, inputs: Mapping[str, int]) -> Call:
    """A perceptron on `count` rows of `inputs`, whose widths these are."""
    return _call(work, name, list(module.children()), count, inputs, {}, 0)


def _edges(
    work: Pass,
    name: str,
    module: nn.Module,
    inputs: Mapping[str, int],
    seen: tuple[str, int],
    collects: bool = False,
) -> Call:
    """A perceptron on edge rows and on node states `seen` (name and width) at their ends."""
    assert isinstance(module, OnEnds)
    hidden = work.model.settings["hidden"]
    modules = [module.first, *module.rest]
    seen_bytes = {seen[0]: work.nodes * seen[1] * work.product}
    sums = 2 * work.nodes * hidden * work.state if collects else 0
    return _call(work, name, modules, work.edges, inputs, seen_bytes, sums)


def _call(
    work: Pass,
    name: str,
    modules: Sequence[nn.Module],
    count: int,
    inputs: Mapping[str, int],
    seen: Mapping[str, int],
    sums: int,
) -> Call:
    hidden = work.model.settings["hidden"]
    row = count * hidden * work.state
    result = count * _widths(modules)[-1] * work.state
    table = 2 * work.nodes * hidden * work.product if seen else 0
    ends = count * hidden * work.product if seen else 0
    keeps, blocked = _how(work, count, inputs)
    internals = _internals(work, modules)
    if blocked:  # one block: what is inside, its gradients, and weights under autocast
        gradients = internals + 2 * hidden * work.state if work.training else 0
        inside = CACHED_ROWS * (gradients + work.state * (4 * hidden + sum(inputs.values())))
    else:
        inside = ends + 2 * row
    if not work.training:
        held = _states(work) + table + sums + inside
        return _on_heap(work, row, keeps, Call(name, {}, held, 0))
    if keeps:
        saved = {**seen, **_copies(work, name, count, inputs), f"inside {name}": count * internals}
        return _on_heap(work, row, keeps, Call(name, saved, inside + table + sums, 2 * row))
    states = {key: count * width * work.state for key, width in inputs.items()}
    saved = {**seen, **states, f"table of {name}": table}
    made = sum(states.values()) + ends + table  # gradients of what went in
    again = inside if blocked else inside + count * internals
    call = Call(name, saved, result + sums + inside, result + sums + made + again)
    return _on_heap(work, row, keeps, call)


def _on_heap(work: Pass, array: int, keeps: bool, call: Call) -> Call:
    """What the call takes of glibc's heap, if its arrays are so small that they lie there."""
    if not (work.heap and work.on_cpu and array < MAPPED_BYTES):
        return call
    more = _KEPT_ON_HEAP if keeps else _REMADE_ON_HEAP
    saved = {name: int(more * size) for name, size in call.saved.items()}
    return Call(call.name, saved, int(more * call.forward), int(more * call.backward))


def _reducing(work: Pass, call: Call, step: int, state: str) -> Call:
    """An update of nodes with what max and std at its hits take: see `segments.aggregate`."""
    hidden, names = work.model.settings["hidden"], work.model.aggregations
    node, row = (count * hidden * work.state for count in (work.nodes, work.edges))
    saved: dict[str, int] = {}
    busy = 0
    if "std" in names:  # mean, variance and root of both directions, and where it is 0
        saved |= {state: row, f"std {step}": 13 * node // 2}
        busy = 3 * row
    if "max" in names:  # of each direction what was there before and after, [2N, H]
        saved |= {state: row, f"max {step}": 8 * node}
        busy = 6 * row  # the gradient asks each edge whether it is the largest
    if not work.training:
        return replace(call, forward=call.forward + (row + 4 * node if saved else 0))
    return replace(call, saved={**call.saved, **saved}, backward=call.backward + busy)


def _how(work: Pass, count: int, inputs: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether internals are kept, and whether rows run in blocks (`Runner`)."""
    first = next(iter(inputs.values()), 0) * count * work.state
    asked = work.model.runner.checkpointing
    remade = (work.on_cpu and first >= LARGE_BYTES) if asked is None else asked
    return not remade, work.on_cpu and (remade or not work.training)


def _copies(work: Pass, name: str, count: int, inputs: Mapping[str, int]) -> dict[str, int]:
    """What the first linear map saves: its one input as it is, else a copy side by side."""
    if len(inputs) == 1 and work.state == work.product:
        return {key: count * width * work.state for key, width in inputs.items()}
    return {f"copy for {name}": count * sum(inputs.values()) * work.product}


def _internals(work: Pass, modules: Sequence[nn.Module]) -> int:
    """Bytes a row that autograd saves between the first linear map and the result."""
    total, before = 0, None
    for module, width in zip(modules, _widths(modules), strict=True):
        if isinstance(module, nn.Linear):
            shared = isinstance(before, _SAVES_RESULT) and work.state == work.product
            if before is not None and not shared:
                total += module.in_features * work.product
        else:
            total += width * work.state
            total += _STATISTICS if isinstance(module, nn.LayerNorm) else 0
        before = module
    if isinstance(before, _SAVES_RESULT) and work.model.form.skip != "residual":
        total -= _widths(modules)[-1] * work.state  # the result is the next state, counted there
    return total


def _widths(modules: Sequence[nn.Module]) -> list[int]:
    """Of the result of each module."""
    widths: list[int] = []
    for module in modules:
        widths.append(module.out_features if isinstance(module, nn.Linear) else widths[-1])
    return widths


def _states(work: Pass) -> int:
    """Bytes of what inference holds at any time: states, the first ones too, and their sums."""
    hidden, states = work.model.settings["hidden"], work.model.form.states
    of_nodes = 1 + states + 2 * len(work.model.aggregations)
    return (work.nodes * of_nodes + work.edges * states) * hidden * work.state
