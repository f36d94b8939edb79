"""Weights trained with acorn (gitlab.cern.ch/gnn4itkteam/acorn) in our network.

acorn writes Lightning checkpoints: `hyper_parameters` with the stage's YAML, `state_dict` with a
Sequential of Linear, LayerNorm without weights and activation for each perceptron. Two families:

- ``InteractionGNN``: nodes first, no skip, edges encoded from their hits, decoder on both hits.
- ``InteractionGNN2``: edges first, encoded inputs concatenated, decoder on the edge alone. (acorn
  runs it in every iteration and returns the last; here it runs once.)

They order the inputs of their perceptrons differently, so columns move; no number changes.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sml_kernel.tracking.form import Form
from sml_kernel.tracking.model import InteractionGNN

_REFUSED = ("batchnorm", "output_batch_norm", "undirected")


def read(
    checkpoint: str | os.PathLike[str], output_layer_norm: bool | None = None
) -> InteractionGNN:
    """The network of an acorn checkpoint; see `InteractionGNN.from_acorn`."""
    settings, state = _load(checkpoint)
    second = any(name.startswith("edge_output_transform.") for name in state)
    if not second and not any(name.startswith("output_edge_classifier.") for name in state):
        raise ValueError(f"{checkpoint} holds neither acorn's InteractionGNN nor InteractionGNN2")
    used = [name for name in _REFUSED if settings.get(name)]
    if used:
        raise ValueError(f"{checkpoint} was trained with {', '.join(used)}, which are not read")
    hidden, iterations = settings["hidden"], settings["n_graph_iters"]
    found = {name: _linears(state, name) for name in ("node_network", "edge_network")}
    shared = all(len(blocks) == 1 for blocks in found.values())
    form = (_second_form if second else _first_form)(settings, output_layer_norm)
    aggregations = settings.get("aggregation") or ["sum"]
    network = InteractionGNN(
        len(settings["node_features"]),
        0 if form.encodes_ends else len(settings["edge_features"]),
        hidden,
        iterations,
        shared,
        ["sum"] if second else [aggregations] if isinstance(aggregations, str) else aggregations,
        form=form,
    )
    _fill(network.node_encoder, _linears(state, "node_encoder")[0], None)
    _fill(network.edge_encoder, _linears(state, "edge_encoder")[0], None)
    edge_first = None if second else _edge_first
    node_first = _node_first(hidden, settings, form) if second else None
    for updates, blocks, moved in (
        (network.edge_updates, found["edge_network"], edge_first),
        (network.node_updates, found["node_network"], node_first),
    ):
        for step, update in enumerate(updates):
            _fill(update, blocks[step % len(blocks)], moved)
    parts = ("edge_decoder", "edge_output_transform") if second else ("output_edge_classifier",)
    decoder = [linear for part in parts for linear in _linears(state, part)[0]]
    _fill(network.decoder, decoder, edge_first)
    return network.eval()


def _load(checkpoint: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{checkpoint} is a pickle that holds more than tensors and plain values, and is not "
            "loaded: whoever trusts it can write "
            "{'state_dict': …, 'hyper_parameters': dict(…)} of it with torch.save. "
            f"torch says: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(held, Mapping) or not {"state_dict", "hyper_parameters"} <= set(held):
        raise ValueError(
            f"{checkpoint} is no Lightning checkpoint: it lacks state_dict or hyper_parameters"
        )
    return dict(held["hyper_parameters"]), dict(held["state_dict"])


def _linears(state: Mapping[str, Tensor], name: str) -> list[list[tuple[Tensor, Tensor]]]:
    """Weight and bias of each linear map, by block: one block, or one an iteration."""
    blocks: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}
    for key in state:
        head, *places, kind = key.split(".")
        if head in (name, f"{name}s") and kind == "weight":
            *block, place = [int(part) for part in places]
            bias = state[key.removesuffix("weight") + "bias"]
            blocks.setdefault(block[0] if block else 0, {})[place] = (state[key], bias)
    if not blocks:
        raise ValueError(f"the checkpoint has no weights of {name}")
    return [[block[place] for place in sorted(block)] for _, block in sorted(blocks.items())]


def _fill(module: nn.Module, linears: list[tuple[Tensor, Tensor]], moved: Any) -> None:
    into = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if len(into) != len(linears):
        raise ValueError(
            f"{len(linears)} linear maps in the checkpoint, {len(into)} by its settings"
        )
    with torch.no_grad():
        for place, (linear, (weight, bias)) in enumerate(zip(into, linears, strict=True)):
            weight = moved(weight) if moved and not place else weight
            if linear.weight.shape != weight.shape:
                raise ValueError(
                    f"a weight of shape {list(weight.shape)} in the checkpoint, "
                    f"{list(linear.weight.shape)} by its settings"
                )
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)


def _edge_first(weight: Tensor) -> Tensor:
    """[source, target, edge] columns → [edge, source, target]."""
    source, target, edge = weight.chunk(3, dim=1)
    return torch.cat([edge, source, target], dim=1)


def _node_first(hidden: int, settings: Mapping[str, Any], form: Form) -> Any:
    """[arriving, leaving, node] columns → [node, arriving, leaving].

    Where acorn adds both sums before the product, the product is made with each.
    """

    def moved(weight: Tensor) -> Tensor:
        sums, node = weight.split([weight.shape[1] - form.states * hidden, form.states * hidden], 1)
        both = [sums] if settings.get("in_out_diff_agg", True) else [sums, sums]
        return torch.cat([node, *both], dim=1)

    return moved


def _first_form(settings: Mapping[str, Any], output_layer_norm: bool | None) -> Form:
    return Form(
        skip="none",
        nodes_first=True,
        encodes_ends=True,
        node_layers=settings["nb_node_layer"],
        edge_layers=settings["nb_edge_layer"],
        decoder_layers=(settings["nb_edge_layer"] + 1,),
        **_layers(settings, output_layer_norm),
    )


def _second_form(settings: Mapping[str, Any], output_layer_norm: bool | None) -> Form:
    last = settings.get("edge_output_transform_final_activation")
    if last not in (None, "Sigmoid"):  # the logit is what a Sigmoid would be given
        raise ValueError(f"edge_output_transform_final_activation {last!r} leaves no logit")
    return Form(
        skip="concat" if settings.get("concat", True) else "none",
        encodes_ends=not settings.get("edge_features"),
        decodes_ends=False,
        node_layers=settings["n_node_net_layers"],
        edge_layers=settings["n_edge_net_layers"],
        decoder_layers=(settings["n_edge_decoder_layers"], 2),
        **_layers(settings, output_layer_norm),
    )


def _layers(settings: Mapping[str, Any], output_layer_norm: bool | None) -> dict[str, Any]:
    norm, last = bool(settings.get("layernorm")), settings.get("output_activation")
    if output_layer_norm is None:
        output_layer_norm = settings.get("output_layer_norm")
    if output_layer_norm is None and norm and last is not None:
        raise ValueError(
            "older acorn normalised before an output activation, newer does not, and the "
            "checkpoint does not say: give output_layer_norm=True or False"
        )
    return {
        "activation": settings["hidden_activation"],
        "last_activation": last,
        "norm": norm,
        "last_norm": bool(output_layer_norm),
        "affine": False,
    }
