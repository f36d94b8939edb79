"""Which member of the interaction-network family: what acorn's variants do differently."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sml_kernel.tracking.perceptron import layers

SKIPS = ("residual", "concat", "none")


@dataclass(frozen=True)
class Form:
    """The shape of a network; the defaults are what `InteractionGNN` trains.

    Attributes
    ----------
    skip
        ``residual`` adds an update to the state, ``none`` replaces the state by it, and
        ``concat`` replaces it too, but hands the encoded input to every update beside the state.
    nodes_first
        An iteration updates nodes before edges.
    encodes_ends
        The first edge states are made from the encoded hits of both ends; there are no edge
        features.
    decodes_ends
        The decoder sees the states of both hits beside that of the edge.
    node_layers, edge_layers
        Linear maps of the perceptrons on hits and on edges, encoders included.
    decoder_layers
        Linear maps of each of the perceptrons that make up the decoder.
    activation, last_activation
        Inside and at the end of encoders and updates (`perceptron.ACTIVATIONS`, or None).
    norm, last_norm, affine
        LayerNorm inside and at the end, and whether it has weights of its own.

    Raises
    ------
    ValueError
        A skip that there is not, or a perceptron without layers.
    """

    skip: str = "residual"
    nodes_first: bool = False
    encodes_ends: bool = False
    decodes_ends: bool = True
    node_layers: int = 2
    edge_layers: int = 2
    decoder_layers: tuple[int, ...] = (2,)
    activation: str = "SiLU"
    last_activation: str | None = "SiLU"
    norm: bool = True
    last_norm: bool = True
    affine: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder_layers", tuple(self.decoder_layers))  # JSON has lists
        if self.skip not in SKIPS:
            raise ValueError(f"no skip {self.skip!r}: there are {', '.join(SKIPS)}")
        if min(self.node_layers, self.edge_layers, 1, *self.decoder_layers) < 1:
            raise ValueError("each perceptron has at least one layer")

    @property
    def states(self) -> int:
        """Arrays of states side by side that an update sees."""
        return 2 if self.skip == "concat" else 1

    def perceptron(self, features: int, hidden: int, count: int) -> list[nn.Module]:
        """An encoder or update of `count` layers."""
        return layers(
            [features] + count * [hidden],
            activation=self.activation,
            norm=self.norm,
            affine=self.affine,
            last_activation=self.last_activation,
            last_norm=self.last_norm,
        )

    def decoder(self, features: int, hidden: int) -> list[nn.Module]:
        """Perceptrons one after the other, the last down to one number."""
        *early, last = self.decoder_layers
        made: list[nn.Module] = []
        for count in early:
            made += self.perceptron(features, hidden, count)
            features = hidden
        return made + layers(
            [features] + (last - 1) * [hidden] + [1],
            activation=self.activation,
            norm=self.norm,
            affine=self.affine,
            last_activation=None,
        )
