"""The events of a member: which it sees, with which weights, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sml_kernel.sbi.bootstrap import poisson_weights
from sml_kernel.sbi.members import Member


class WeightError(ValueError):
    """A class whose weights leave nothing to learn: one member's trouble, not the stack's."""


@dataclass(frozen=True)
class Sample:
    """Events of all classes, checked; made by `sample`.

    Attributes
    ----------
    x
        [N, D] float32 features.
    classes
        [N] int64.
    weights
        [N] float64, single negative ones allowed.
    ids
        [N] names for the bootstrap, those of `bootstrap.poisson_weights`.
    """

    x: Tensor
    classes: Tensor
    weights: Tensor
    ids: np.ndarray

    def rows(self, classes: tuple[int, int]) -> Tensor:
        """[n] rows of two classes."""
        numerator, reference = (self.classes == each for each in classes)
        return torch.nonzero(numerator | reference).squeeze(1)


def sample(
    x: np.ndarray, classes: np.ndarray, weights: np.ndarray | None = None, *, ids: np.ndarray
) -> Sample:
    """Events as members train on them.

    Parameters
    ----------
    x, classes
        [N, D] features and [N] integers.
    weights
        [N]; None: all 1.
    ids
        [N] integers that name the events. Names belong to events and not to places: training and
        validation events that share names would fluctuate together.

    Raises
    ------
    ValueError
        Shapes that do not fit, or values that are not finite.
    """
    x = np.asarray(x, np.float32)
    if x.ndim != 2:
        raise ValueError(f"features are [N, D], not {list(x.shape)}")
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    for what, values in (("classes", classes), ("weights", weights), ("ids", ids)):
        if np.shape(values) != (len(x),):
            raise ValueError(f"{len(x)} events have {what} of shape {list(np.shape(values))}")
    for what, values in (("features", x), ("weights", weights)):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"{what} are not finite, first in row {bad[0][0]}: remove such events")
    return Sample(
        torch.from_numpy(x),
        torch.from_numpy(np.asarray(classes, np.int64)),
        torch.from_numpy(weights),
        np.asarray(ids),
    )


@dataclass(frozen=True)
class Share:
    """What a member sees of a sample.

    Attributes
    ----------
    rows
        [n] in the sample.
    targets
        [n] float32, 1 for the numerator.
    weights
        [n] float32 of mean 1: bootstrapped, each class with half of the total (CARL).
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor


def share(events: Sample, member: Member, campaign: int) -> Share:
    """The events of a member with balanced weights.

    Raises
    ------
    WeightError
        A class without events, or of a total weight that is not positive.
    """
    rows = events.rows(member.classes)
    targets = events.classes[rows] == member.classes[0]
    weights = events.weights[rows]
    if member.replica is not None:
        counts = poisson_weights(campaign, [member.replica], events.ids[rows.numpy()])[0]
        weights = weights * torch.from_numpy(counts)
    of_numerator = float(torch.where(targets, weights, 0).sum())
    totals = of_numerator, float(torch.where(targets, 0, weights).sum())
    for total, number in zip(totals, member.classes, strict=True):
        if not total > 0:
            raise WeightError(
                f"class {number} has a total weight of {total:g} (replica {member.replica}):"
                " a ratio to it cannot be learned"
            )
    one, other = (weights.new_tensor(len(rows) / (2 * total)) for total in totals)
    balanced = weights * torch.where(targets, one, other)
    return Share(rows, targets.float(), balanced.float())


class Tables:
    """Batches that the members of a stack go through, each in its own order and at its own pace.

    Parameters
    ----------
    members
        M places.
    batches
        S, most batches of an epoch.
    batch
        B events.
    """

    def __init__(self, members: int, batches: int, batch: int) -> None:
        self.batches = batches
        self._rows = torch.zeros(members, batches, batch, dtype=torch.int32)
        self._targets = torch.zeros(members, batches, batch)
        self._weights = torch.zeros(members, batches, batch)

    def fill(self, place: int, events: Share, order: Tensor) -> None:
        """Lay out events in an order; what is left of the place has weight 0."""
        for table, values in (
            (self._rows, events.rows),
            (self._targets, events.targets),
            (self._weights, events.weights),
        ):
            flat = table[place].view(-1)
            flat[: len(order)] = values.index_select(0, order)
            flat[len(order) :] = 0

    def take(self, places: Sequence[int], numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Batch `numbers[k]` of member `places[k]`: [K, B] rows, targets and weights."""
        at = (torch.tensor(places), torch.tensor(numbers))
        return self._rows[at], self._targets[at], self._weights[at]

    def keep(self, places: list[int]) -> None:
        """Go on with these members alone, in this order."""
        self._rows, self._targets = self._rows[places], self._targets[places]
        self._weights = self._weights[places]
