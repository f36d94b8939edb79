"""The events of a member: which it sees, with which weights, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sml_kernel.sbi.stack import losses
from sml_kernel.sbi.stack.bootstrap import poisson_weights
from sml_kernel.sbi.stack.members import Member


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
    joint_log_ratio
        [N] float64 ln p_numerator(x,z)/p_reference(x,z) of all that the simulator drew, or None.
        It belongs to one pair of classes.
    """

    x: Tensor
    classes: Tensor
    weights: Tensor
    ids: np.ndarray
    joint_log_ratio: Tensor | None = None

    def rows(self, classes: tuple[int, int]) -> Tensor:
        """[n] rows of two classes."""
        numerator, reference = (self.classes == each for each in classes)
        return torch.nonzero(numerator | reference).squeeze(1)


def sample(
    x: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    ids: np.ndarray,
    joint_log_ratio: np.ndarray | None = None,
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
    joint_log_ratio
        [N]; see `Sample`. Needed for the losses ``alice`` and ``rolr``.

    Raises
    ------
    ValueError
        Shapes that do not fit, or values that are not finite.
    """
    x = np.asarray(x, np.float32)
    if x.ndim != 2:
        raise ValueError(f"features are [N, D], not {list(x.shape)}")
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    columns = {"classes": classes, "weights": weights, "ids": ids}
    finite = {"features": x, "weights": weights}
    if joint_log_ratio is not None:
        joint_log_ratio = np.asarray(joint_log_ratio, float)
        columns["joint_log_ratio"] = finite["joint_log_ratio"] = joint_log_ratio
    for what, values in columns.items():
        if np.shape(values) != (len(x),):
            raise ValueError(f"{len(x)} events have {what} of shape {list(np.shape(values))}")
    for what, values in finite.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"{what} are not finite, first in row {bad[0][0]}: remove such events")
    return Sample(
        torch.from_numpy(x),
        torch.from_numpy(np.asarray(classes, np.int64)),
        torch.from_numpy(weights),
        np.asarray(ids),
        None if joint_log_ratio is None else torch.from_numpy(joint_log_ratio),
    )


@dataclass(frozen=True)
class Share:
    """What a member sees of a sample.

    Attributes
    ----------
    rows
        [n] in the sample.
    targets
        [n] float32, those of `losses.targets`: 1 for the numerator, 0 for the reference.
    weights
        [n] float32 of mean 1: bootstrapped, each class with half of the total (CARL).
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor


class Shares:
    """The events of one member after another.

    Parameters
    ----------
    events
        Of all classes.
    campaign
        Of the bootstrap.
    loss
        One of `losses.LOSSES`.
    """

    def __init__(self, events: Sample, campaign: int, loss: str = "bce") -> None:
        self._events, self._campaign, self._loss = events, campaign, loss
        self._of_classes: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._block, self._counts = -1, np.empty((4, 0), np.uint8)

    def of(self, member: Member) -> Share:
        """The events of a member with balanced weights.

        Raises
        ------
        WeightError
            A class without events, or of a total weight that is not positive.
        """
        rows, numerator, targets = self._pair(member.classes)
        weights = self._events.weights[rows]
        if member.replica is not None:
            weights = weights * torch.from_numpy(self._replica(member.replica))[rows]
        of_numerator = float(torch.where(numerator, weights, 0).sum())
        totals = of_numerator, float(torch.where(numerator, 0, weights).sum())
        for total, number in zip(totals, member.classes, strict=True):
            if not total > 0:
                raise WeightError(
                    f"class {number} has a total weight of {total:g} (replica {member.replica}):"
                    " a ratio to it cannot be learned"
                )
        one, other = (weights.new_tensor(len(rows) / (2 * total)) for total in totals)
        return Share(rows, targets, (weights * torch.where(numerator, one, other)).float())

    def _pair(self, classes: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        if classes not in self._of_classes:
            rows = self._events.rows(classes)
            numerator = self._events.classes[rows] == classes[0]
            joint = self._events.joint_log_ratio
            joint = None if joint is None else joint[rows]
            self._of_classes[classes] = (
                rows,
                numerator,
                losses.targets(self._loss, numerator, joint),
            )
        return self._of_classes[classes]

    def _replica(self, replica: int) -> np.ndarray:
        """[N] counts; four replicas cost as much as one, so that four are kept."""
        if replica >> 2 != self._block:
            first = replica >> 2 << 2
            four = range(first, first + 4)
            self._counts = poisson_weights(self._campaign, four, self._events.ids)
            self._block = replica >> 2
        return self._counts[replica & 3]


class Tables:
    """Batches that the members of a stack go through, each in its own order and at its own pace.

    A batch lies in one piece, features, targets and weights: a step copies one piece a member.

    Parameters
    ----------
    members
        M places.
    batches
        S, most batches of an epoch.
    batch
        B events.
    x
        [N, D] features of all events, on the device where the batches are wanted.
    """

    def __init__(self, members: int, batches: int, batch: int, x: Tensor) -> None:
        self.batches = batches
        self._x = x
        self._laid = x.new_zeros(members, batches, x.shape[1] + 2, batch)

    def fill(self, place: int, events: Share, order: Tensor) -> None:
        """Lay out events in an order; what is left of the place has weight 0."""
        inputs, batch = self._x.shape[1], self._laid.shape[3]
        count, batches = len(order), -(-len(order) // batch)
        order = functional.pad(order, (0, batches * batch - count))
        rows, targets, weights = (
            each.index_select(0, order).to(self._x.device)
            for each in (events.rows, events.targets, events.weights)
        )
        weights[count:] = 0
        laid = self._laid[place]
        laid[:batches, :inputs] = self._x.index_select(0, rows).view(batches, batch, inputs).mT
        laid[:batches, inputs] = targets.view(batches, batch)
        laid[:batches, inputs + 1] = weights.view(batches, batch)
        laid[batches:, inputs + 1] = 0

    def places(self, places: Sequence[int], numbers: Sequence[int]) -> Tensor:
        """[K] where batch `numbers[k]` of member `places[k]` lies; the next batch lies one on."""
        at = [p * self.batches + n for p, n in zip(places, numbers, strict=True)]
        return torch.tensor(at, device=self._x.device)

    def take(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The batches at [K] `places`: [K, D, B] features, [K, B] targets and weights."""
        taken = self._laid.flatten(0, 1).index_select(0, at)
        return taken[:, :-2], taken[:, -2], taken[:, -1]

    def keep(self, places: list[int]) -> None:
        """Go on with these members alone, in this order."""
        self._laid = self._laid[places]
