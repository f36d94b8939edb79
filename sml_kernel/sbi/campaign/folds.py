"""Folds: which events a member never sees, so that it can be judged and used on them.

An event falls into a fold by its name alone (`Problem.event_ids`), with Philox as the bootstrap
does: systematic variations of one event are in one fold, and the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sml_kernel.sbi.stack.bootstrap import philox

_PURPOSE = 0xF01D0000  # fourth word of the counter; the bootstrap's stays below 2³⁰


@dataclass(frozen=True)
class Folds:
    """How events are shared out.

    Attributes
    ----------
    count
        F, at least 2: a member of fold f trains on the other F − 1.
    validation
        Share of these that is not trained on but decides when to stop.
    campaign
        Of the ensemble: another one has other folds.
    """

    count: int = 2
    validation: float = 0.2
    campaign: int = 0

    def __post_init__(self) -> None:
        if self.count < 2 or not 0 < self.validation < 1:
            raise ValueError(f"at least 2 folds, and a share of validation in (0, 1): {self}")

    def of(self, events: np.ndarray) -> np.ndarray:
        """[N] fold, 0 … F − 1, of events named [N]."""
        first, _ = self._words(events)
        return (first * np.uint64(self.count) >> np.uint64(32)).astype(np.int64)

    def split(self, events: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """[N] events that members of a fold train on, and [N] those that they stop by."""
        outside = self.of(events) != fold
        _, second = self._words(events)
        stops = second < np.uint64(round(self.validation * (1 << 32)))
        return outside & ~stops, outside & stops

    def _words(self, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        names = np.asarray(events).astype(np.uint64)
        low, high = names & np.uint64(0xFFFFFFFF), names >> np.uint64(32)
        words = philox((low, high, 0, _PURPOSE), self.campaign)
        return words[0], words[1]
