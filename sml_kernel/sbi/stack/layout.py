"""Where the numbers of one small network lie: in whole tiles, so that products have no remainders.

Widths are padded with zeros to 4 and events to 16 (`tiles`). Padding stays zero by itself: what
arrives at it has been multiplied by weights of zero, and Adam does not move what has no gradient.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from sml_kernel.sbi.stack.tiles import EVENTS, ROWS

#: Events of a chunk of a batch: activations of 4x100 and their slopes are then 480 KB, an L2 cache.
CHUNK = 128


class Layout(NamedTuple):
    """Where the parts of a network of L hidden layers lie; made by `layout`.

    Attributes
    ----------
    widths
        [L + 1] of features and hidden layers.
    padded
        [L + 1] the same in whole tiles.
    weights
        [L + 1] where the weight of each map begins; the bias follows.
    rows
        [L + 2] where each layer begins among the rows of activations; all rows last.
    places
        [P] where each parameter lies, in the order of `perceptrons.Perceptron.views`.
    """

    widths: np.ndarray
    padded: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    places: np.ndarray

    @property
    def size(self) -> int:
        """Of the parameters with their padding."""
        return int(self.weights[-1] + self.padded[-1] + 1)


class Space(NamedTuple):
    """What a network works in; made by `space`.

    Attributes
    ----------
    seen
        [rows · stride] features, then what each layer gives.
    slopes
        The same places: derivatives of activations, then gradients of what comes before them.
    logits, targets, weights
        [stride] of a chunk; logits become their gradient.
    """

    seen: np.ndarray
    slopes: np.ndarray
    logits: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class State(NamedTuple):
    """[padded size] parameters, Adam's means of gradient and of its square, and the gradient."""

    parameters: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    gradient: np.ndarray


class Events(NamedTuple):
    """What a network sees.

    Attributes
    ----------
    x
        [N, D'] features of all events.
    columns
        [D] of them that it sees.
    rows, targets, weights
        [n] its events: row in `x`, target, and weight.
    """

    x: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


@functools.cache
def layout(inputs: int, hidden: tuple[int, ...]) -> Layout:
    """Of a network of so many features and hidden widths."""
    widths = np.array([inputs, *hidden])
    padded = -(-widths // ROWS) * ROWS
    weights, places, size = [], [], 0
    for wide, stride, out, rows in zip(widths, padded, [*hidden, 1], [*padded[1:], 1], strict=True):
        weights.append(size)
        places += [size + stride * np.arange(out)[:, None] + np.arange(wide)]
        places += [size + stride * rows + np.arange(out)]
        size += rows * (stride + 1)
    rows = np.concatenate([[0], np.cumsum(padded)])
    return Layout(
        widths, padded, np.array(weights), rows, np.concatenate([each.ravel() for each in places])
    )


def space(net: Layout, events: int, *, trains: bool) -> Space:
    """For batches of so many events; slopes only where it trains.

    A row is 16 events longer than a chunk: rows a power of two apart would meet in few places of
    the cache.
    """
    stride = min(CHUNK, -(-events // EVENTS) * EVENTS) + EVENTS
    seen = np.zeros(net.rows[-1] * stride, np.float32)
    slopes = np.zeros(len(seen) if trains else 0, np.float32)
    return Space(seen, slopes, *np.zeros((3, stride), np.float32))


def state(net: Layout, parameters: np.ndarray) -> State:
    """Of a network that begins with [P] parameters."""
    made = State(*np.zeros((4, net.size), np.float32))
    made.parameters[net.places] = parameters
    return made
