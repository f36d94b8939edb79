"""An epoch, and an evaluation, of small networks in one call of compiled code.

Python and torch are not asked between batches, and a network's numbers stay in the cache.

Compiling takes 8 to 12 s of a core, half of it numba's own Python, so that numba keeps the result
on disk: in ``__pycache__`` beside this file, in the user's cache folder where that cannot be
written, or where ``NUMBA_CACHE_DIR`` says. A process that finds it there needs 0.8 s. It is valid
for one type of processor and version of numba, and may be deleted like Python's ``.pyc``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from sml_kernel.sbi.stack import kernels, tiles
from sml_kernel.sbi.stack.kernels import adam, backward, forward, gather, loss_gradient
from sml_kernel.sbi.stack.layout import CHUNK, Events, Layout, Space, State, space
from sml_kernel.sbi.stack.tiles import EVENTS


def _sources() -> int:
    """Of all that is compiled into the functions below."""
    texts = b"".join(Path(str(module.__file__)).read_bytes() for module in (kernels, tiles))
    return int.from_bytes(hashlib.sha256(texts).digest()[:7], "little")


def _kept(sources: int) -> tuple[Callable, Callable]:
    """`epoch` and `evaluate`.

    numba finds a kept function by this file's date and by the variables that the function closes
    over. `sources` is one, so that a change of other files is seen too.
    """
    compiled = numba.njit(fastmath={"contract"}, error_model="numpy", nogil=True, cache=True)

    @compiled
    def epoch(net, relu, rolr, state, space, events, order, batch, done, rate):  # type: ignore[no-untyped-def]
        _ = sources
        chunk = len(space.logits) - EVENTS
        for step in range(len(order) // batch):
            state.gradient[:] = np.float32(0)
            for begin in range(0, batch, chunk):
                count = min(chunk, batch - begin)
                full = gather(net, events, order, step * batch + begin, count, space)
                forward(net, relu, state.parameters, space, full)
                loss_gradient(rolr, space, full, np.float32(1) / np.float32(batch))
                backward(net, state.parameters, state.gradient, space, full)
            adam(state, done + step + 1, rate)
        return len(order) // batch

    @compiled
    def evaluate(net, relu, parameters, space, columns, logits):  # type: ignore[no-untyped-def]
        _ = sources
        stride, events = len(space.logits), logits.shape[1]
        for member in range(len(logits)):
            for begin in range(0, events, stride - EVENTS):
                count = min(stride - EVENTS, events - begin)
                for n in range(len(columns)):
                    space.seen[n * stride : n * stride + count] = columns[n, begin : begin + count]
                forward(net, relu, parameters[member], space, -(-count // EVENTS) * EVENTS)
                logits[member, begin : begin + count] = space.logits[:count]

    return epoch, evaluate


_epoch, _evaluate = _kept(_sources())


def epoch(
    net: Layout,
    activation: str,
    loss: str,
    state: State,
    space: Space,
    events: Events,
    order: np.ndarray,
    batch: int,
    done: int,
    rate: float,
) -> int:
    """Move a network by each whole batch of an order.

    Parameters
    ----------
    net, activation, state, space, events
        The network and its events.
    loss
        One of `losses.LOSSES`.
    order
        [n] int64 numbers of its events.
    batch
        B.
    done
        Steps before this epoch.
    rate
        Learning rate.

    Returns
    -------
    int
        Steps of this epoch.
    """
    relu, rolr = activation == "ReLU", loss == "rolr"
    return _epoch(net, relu, rolr, state, space, events, order, batch, done, rate)


def evaluate(
    net: Layout, activation: str, parameters: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """[M, N] logits of networks of [M, P] parameters for [D, N] features."""
    logits = np.empty((len(parameters), columns.shape[1]), np.float32)
    padded = np.zeros((len(parameters), net.size), np.float32)
    padded[:, net.places] = parameters
    _evaluate(net, activation == "ReLU", padded, space(net, CHUNK, trains=False), columns, logits)
    return logits
