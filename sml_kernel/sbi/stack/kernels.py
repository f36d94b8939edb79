"""The passes of one small network over a chunk of events, compiled: nothing leaves the cache.

Loops are written so that the compiler makes vectors of them: over pieces of arrays, whose indices
start from 0, and without branches. Products are tiles with written-out vectors (`tiles`).
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

from sml_kernel.sbi.stack.tiles import EVENTS, ROWS, outer_tile, product_tile, scaled_tile

_FIRST, _SECOND, _EPS = 0.9, 0.999, 1e-8  # of torch.optim.Adam
_ONE, _ZERO = np.float32(1), np.float32(0)

# contract: a·b + c is rounded once; nothing else may be reordered
_compiled = numba.njit(fastmath={"contract"}, error_model="numpy", nogil=True)
# reassoc: sums over events may be vectors of partial sums, always the same ones
_summing = numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True)


def _powers_of_two() -> tuple[np.float32, ...]:
    """Of the polynomial through 2ᶠ at Chebyshev's points of |f| ≤ 1/2; 8e-8 from it at most."""
    through = Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5])
    return tuple(np.float32(each) for each in through.convert(kind=Polynomial).coef)


_C0, _C1, _C2, _C3, _C4, _C5 = _powers_of_two()
_LOG2E = np.float32(1 / math.log(2))
_ROUNDING = np.float32(3 << 22)  # a float32 this large has no binary places: adding it rounds


@intrinsic
def _times_power_of_two(typing, number, large):  # type: ignore[no-untyped-def]
    """number·2ᵏ with k in the lowest bits of a float32: added to the exponent."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> Any:
        one, k = (builder.bitcast(each, ir.IntType(32)) for each in given)
        k = builder.shl(k, ir.Constant(ir.IntType(32), 23))
        return builder.bitcast(builder.add(one, k), ir.FloatType())

    return numba.float32(numba.float32, numba.float32), code


@intrinsic
def _clamped(typing, z):  # type: ignore[no-untyped-def]
    """Into ±87, e⁸⁷ and its inverse being float32: two instructions."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> Any:
        low, high = (ir.Constant(ir.FloatType(), limit) for limit in (-87.0, 87.0))
        more = builder.select(builder.fcmp_ordered(">", given[0], low), given[0], low)
        return builder.select(builder.fcmp_ordered("<", more, high), more, high)

    return numba.float32(numba.float32), code


@_compiled
def _exp(z):  # type: ignore[no-untyped-def]
    """2ᵏ·2ᶠ: k is rounded by adding a large number, in whose lowest bits it then stands."""
    z = _clamped(z)
    large = z * _LOG2E + _ROUNDING
    f = z * _LOG2E - (large - _ROUNDING)
    two_to_f = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5))))
    return _times_power_of_two(two_to_f, large)


@_compiled
def _activate(relu, seen, slopes):  # type: ignore[no-untyped-def]
    """z → activation and its slope; SiLU z·σ has σ + z·σ(1 − σ), from one exponential."""
    if relu:
        for place in range(len(seen)):
            z = seen[place]
            slope = np.float32(z > _ZERO)  # times z: 5 times faster than max(z, 0), and nan stays
            slopes[place], seen[place] = slope, z * slope
    else:
        for place in range(len(seen)):
            z = seen[place]
            s = _ONE / (_ONE + _exp(-z))
            value = z * s
            seen[place] = value
            slopes[place] = s + value * (_ONE - s)


@_compiled
def _activate_alone(relu, seen):  # type: ignore[no-untyped-def]
    if relu:
        for place in range(len(seen)):
            seen[place] *= np.float32(seen[place] > _ZERO)
    else:
        for place in range(len(seen)):
            z = seen[place]
            seen[place] = z / (_ONE + _exp(-z))


@_compiled
def _add_four(total, one, two, three, four, factors):  # type: ignore[no-untyped-def]
    """Four rows in one pass, each times its factor: the sum is read and written once."""
    a, b, c, d = factors[0], factors[1], factors[2], factors[3]
    for place in range(len(total)):
        part = a * one[place] + b * two[place] + c * three[place] + d * four[place]
        total[place] += part


@_compiled
def _scale(into, values, factor):  # type: ignore[no-untyped-def]
    for place in range(len(into)):
        into[place] *= factor * values[place]


@_summing
def _sum_of_products(one, other):  # type: ignore[no-untyped-def]
    total = _ZERO
    for place in range(len(one)):
        total += one[place] * other[place]
    return total


@_summing
def _sum(values):  # type: ignore[no-untyped-def]
    total = _ZERO
    for place in range(len(values)):
        total += values[place]
    return total


@_compiled
def forward(net, relu, parameters, space, events):  # type: ignore[no-untyped-def]
    """From features in `space.seen` to `space.logits`, of so many events in whole tiles."""
    stride, seen = len(space.logits), space.seen
    last = len(net.widths) - 1
    for layer in range(last):
        wide, matrix = net.widths[layer], net.weights[layer]
        row, out = net.padded[layer], net.padded[layer + 1]
        before, after = net.rows[layer] * stride, net.rows[layer + 1] * stride
        for event in range(0, events, EVENTS):  # 16 events of all features stay in L1
            for r in range(0, out, ROWS):
                product_tile(
                    parameters, matrix + r * row, row, 1, seen, before + event, stride, wide,
                    parameters, matrix + out * row + r, seen, after + r * stride + event,
                )  # fmt: skip
        for begin in range(after, after + out * stride, stride):
            end = begin + events
            if len(space.slopes):
                _activate(relu, seen[begin:end], space.slopes[begin:end])
            else:
                _activate_alone(relu, seen[begin:end])
    first, here, logits = net.weights[last], net.rows[last] * stride, space.logits[:events]
    logits[:] = parameters[first + net.padded[last]]
    for row in range(0, net.padded[last], 4):
        one, two, three, four = here, here + stride, here + 2 * stride, here + 3 * stride
        _add_four(
            logits, seen[one : one + events], seen[two : two + events],
            seen[three : three + events], seen[four : four + events],
            parameters[first + row : first + row + 4],
        )  # fmt: skip
        here += 4 * stride


@_compiled
def backward(net, parameters, gradient, space, events):  # type: ignore[no-untyped-def]
    """Add the gradient of a chunk, from that of logits, which stands in their place."""
    stride, seen, slopes = len(space.logits), space.seen, space.slopes
    last = len(net.widths) - 1
    first, here, arriving = net.weights[last], net.rows[last] * stride, space.logits[:events]
    gradient[first + net.padded[last]] += _sum(arriving)
    for row in range(net.widths[last]):
        gradient[first + row] += _sum_of_products(arriving, seen[here : here + events])
        _scale(slopes[here : here + events], arriving, parameters[first + row])
        here += stride
    for layer in range(last - 1, -1, -1):
        matrix, wide, out = net.weights[layer], net.padded[layer], net.padded[layer + 1]
        before, after = net.rows[layer] * stride, net.rows[layer + 1] * stride
        for r in range(0, out, 2):
            for c in range(0, wide, 4):
                outer_tile(
                    slopes, after + r * stride, seen, before + c * stride, stride, events,
                    gradient, matrix + r * wide + c, wide,
                )  # fmt: skip
        for r in range(out):
            here = after + r * stride
            gradient[matrix + out * wide + r] += _sum(slopes[here : here + events])
        if layer:
            for event in range(0, events, EVENTS):
                for r in range(0, wide, ROWS):
                    scaled_tile(
                        parameters, matrix + r, 1, wide, slopes, after + event, stride, out,
                        slopes, before + r * stride + event,
                    )  # fmt: skip


@_compiled
def gather(net, events, order, begin, count, space):  # type: ignore[no-untyped-def]
    """The next events of an order as columns; those that fill the last tile weigh nothing."""
    stride, full = len(space.logits), -(-count // EVENTS) * EVENTS
    for place in range(count):
        event = order[begin + place]
        space.targets[place] = events.targets[event]
        space.weights[place] = events.weights[event]
        row = events.rows[event]
        for n in range(len(events.columns)):
            space.seen[n * stride + place] = events.x[row, events.columns[n]]
    for place in range(count, full):
        space.weights[place] = _ZERO
        for n in range(len(events.columns)):
            space.seen[n * stride + place] = _ZERO
    return full


@_compiled
def loss_gradient(rolr, space, events, scale):  # type: ignore[no-untyped-def]
    """`losses.gradient_`, weighted."""
    for event in range(events):
        logit, target = space.logits[event], space.targets[event]
        if rolr:
            sign = np.float32(target > _ZERO) - np.float32(target < _ZERO)
            ratio = _exp(sign * logit)
            slope = (ratio * sign - target) * (ratio + ratio)
        else:
            slope = _ONE / (_ONE + _exp(-logit)) - target
        space.logits[event] = slope * (space.weights[event] * scale)


@_compiled
def adam(state, steps, rate):  # type: ignore[no-untyped-def]
    """torch.optim.Adam's step number `steps`, from 1, in one pass."""
    scale = math.sqrt(1 - _SECOND**steps)
    rate = rate / (1 - _FIRST**steps)
    below, epsilon = np.float32(1 / (rate * scale)), np.float32(_EPS / rate)
    keep, take = np.float32(_SECOND), np.float32(1 - _SECOND)
    nearer = np.float32(1 - _FIRST)
    for place in range(len(state.parameters)):
        gradient = state.gradient[place]
        mean = state.mean[place] + nearer * (gradient - state.mean[place])
        square = state.square[place] * keep + take * gradient * gradient
        state.mean[place], state.square[place] = mean, square
        state.parameters[place] -= mean / (np.sqrt(square) * below + epsilon)
