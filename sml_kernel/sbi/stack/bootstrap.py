"""Bootstrap weights that are calculated, not stored: Poisson(1) from campaign, replica and event.

A weight is a pure function of three integers: the same on every machine, whatever else was asked
before. Networks of one replica see an event fluctuate alike, also under different classes and
systematic variations; those of two replicas see it fluctuate independently.

The random numbers are those of Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405): the
key is the campaign, the counter is event and replica, and a block of four words serves four
replicas. A word becomes a weight by inversion, so that probabilities are exact to 2⁻³².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_LOW, _HALF = np.uint64(_WORD), np.uint64(32)
_EVENTS_AT_ONCE = 1 << 13  # some arrays of 64 KB each: they stay in the cache


def poisson_weights(campaign: int, replicas: Sequence[int], events: np.ndarray) -> np.ndarray:
    """How often each replica holds each event.

    Parameters
    ----------
    campaign
        Of 64 bits: another campaign has other weights.
    replicas
        [R] of 64 bits each. Four that follow a multiple of 4 cost as much as one.
    events
        [E] integers that name events, not their places: an event keeps its name in every file,
        selection and variation. One that is named twice has the same weight twice.

    Returns
    -------
    numpy.ndarray
        [R, E] uint8, Poisson with mean 1.

    Raises
    ------
    ValueError
        A number that is negative or has more than 64 bits, or events that are no integers.
    """
    events = np.asarray(events)
    if events.ndim != 1 or events.dtype.kind not in "iu":
        raise ValueError(f"events are [E] integers, not {list(events.shape)} {events.dtype}")
    if events.size and events.dtype.kind == "i" and events.min() < 0:
        raise ValueError(f"event {events.min()}: name events by integers from 0")
    for what, number in [("campaign", campaign), *(("replica", each) for each in replicas)]:
        if not 0 <= number < 1 << 64:
            raise ValueError(f"{what} {number} is not in 0..2**64 - 1")
    weights = np.empty((len(replicas), len(events)), np.uint8)
    for start in range(0, len(events), _EVENTS_AT_ONCE):
        here = slice(start, start + _EVENTS_AT_ONCE)
        names = events[here].astype(np.uint64)
        low, high = names & _LOW, names >> _HALF
        for block in sorted({replica >> 2 for replica in replicas}):
            words = philox((low, high, block & _WORD, block >> 32), campaign)
            for place, replica in enumerate(replicas):
                if replica >> 2 == block:
                    weights[place, here] = _poisson(words[replica & 3])
    return weights


def philox(counter: Sequence[np.ndarray | int], key: int) -> list[np.ndarray]:
    """Four words of 32 bits for each counter.

    Parameters
    ----------
    counter
        Four words, lowest first: uint64 arrays below 2³², or integers for all places.
    key
        Of 64 bits.

    Returns
    -------
    list of numpy.ndarray
        Four uint64 arrays below 2³².
    """
    shape = np.broadcast_shapes(*(np.shape(word) for word in counter))
    words = [np.broadcast_to(np.asarray(word, np.uint64), shape) for word in counter]
    keys = [key & _WORD, key >> 32]
    for _ in range(_ROUNDS):
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            (second >> _HALF) ^ words[1] ^ np.uint64(keys[0]),
            second & _LOW,
            (first >> _HALF) ^ words[3] ^ np.uint64(keys[1]),
            first & _LOW,
        ]
        keys = [(each + step) & _WORD for each, step in zip(keys, _KEY_STEPS, strict=True)]
    return words


def _thresholds() -> tuple[int, ...]:
    """2³² times the probabilities of at most 0, 1, 2 …, by fractions: no machine's rounding."""
    euler = sum((Fraction(1, math.factorial(n)) for n in range(30)), Fraction(0))
    found, below = [], Fraction(0)
    for count in range(20):
        below += 1 / (math.factorial(count) * euler)
        found.append(round(below * (1 << 32)))
    return tuple(each for each in found if each < 1 << 32)


_THRESHOLDS = _thresholds()


def _poisson(words: np.ndarray) -> np.ndarray:
    small = words.astype(np.uint32)
    weights = np.zeros(len(small), np.uint8)
    for threshold in _THRESHOLDS:
        weights += small >= np.uint32(threshold)
    return weights
