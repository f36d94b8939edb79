"""Where events came from, and the error that says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


class InputError(ValueError):
    """Events that cannot be used; the message says where, what is wrong and what to do."""


@dataclass(frozen=True)
class Origin:
    """Where rows came from, for messages.

    Attributes
    ----------
    files
        Name of each file, or ``("arrays",)``.
    starts
        Row, counted over all files, at which each begins.
    place, first
        What a row is called in each file (``line``, ``row``) and the number of its first.
    label, weight, event
        The columns of classes, weights and event numbers.
    """

    files: tuple[str, ...] = ("arrays",)
    starts: tuple[int, ...] = (0,)
    place: tuple[str, ...] = ("row",)
    first: tuple[int, ...] = (0,)
    label: str = "labels"
    weight: str = "weights"
    event: str = "event_ids"

    def wrong(self, row: int, column: str, what: str) -> InputError:
        """The error for one value: ``FILE, line 7, column 'x': what is wrong``."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        number = row - self.starts[file] + self.first[file]
        return InputError(
            f"{self.files[file]}, {self.place[file]} {number}, column {column!r}: {what}"
        )

    def of_rows(self, rows: np.ndarray) -> str:
        """The files that the `rows` came from, as text."""
        found = np.unique(np.searchsorted(self.starts, rows, side="right") - 1)
        names = [self.files[file] for file in found] if len(rows) else self.files
        return ", ".join(dict.fromkeys(names))
