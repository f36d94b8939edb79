"""Many small networks trained as one; each learns what it would have learned alone.

A step moves every member by one batch of its own: the matrix products of all are one batched
product, and one Adam holds the state of all. At the end of its epoch a member is judged on
validation events. One that has finished leaves; while members wait the next takes its place, and
when none does the stack goes on with those that are left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from sml_kernel.sbi.adam import Adam
from sml_kernel.sbi.batches import Sample, Share, Tables, WeightError, share
from sml_kernel.sbi.members import Member, Recipe, Trained
from sml_kernel.sbi.perceptrons import Perceptron, Workspace, initial
from sml_kernel.sbi.slots import members_at_once

__all__ = ["train"]


def train(
    members: Sequence[Member],
    training: Sample,
    validation: Sample,
    recipe: Recipe,
    *,
    campaign: int = 0,
    at_once: int | None = None,
) -> Iterator[Trained]:
    """Train members, and yield each when it has finished; the caller may stop.

    Alone a member would be trained so, and gets the same numbers: ``torch.manual_seed(seed)``, the
    network, torch.optim.Adam; a generator of its own with the same seed for the order of each
    epoch, ``torch.randperm(n, generator=...)`` of the events of its classes; the loss the mean over
    a batch of weighted binary cross-entropy.

    Parameters
    ----------
    members
        In any number.
    training, validation
        Of all classes, by `batches.sample`.
    recipe
        What members have in common.
    campaign
        Of the bootstrap, whose weights validation events have too.
    at_once
        Members in the stack; None: as many as the cache holds (`slots.members_at_once`).

    Yields
    ------
    Trained
        Each member once, in the order in which they finish. One that diverged or has nothing to
        learn from says so in its `failure`, and takes no other down.

    Raises
    ------
    ValueError
        Samples of different features, a member with features or classes that are not there, or a
        batch larger than a member's events.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at least 1 member at once, not {at_once}")
    shape = Perceptron(training.x.shape[1], recipe.hidden, recipe.activation)
    most = _checked(members, training, validation, recipe)
    if at_once is None:
        at_once = members_at_once(shape, recipe.batch, most[0])
    places = min(at_once, len(members))
    stack = _Stack(shape, recipe, training, validation, places, most)
    waiting, free = deque(members), list(range(places))
    while True:
        while free and waiting:
            member = waiting.popleft()
            try:
                shares = share(training, member, campaign), share(validation, member, campaign)
            except WeightError as error:
                nothing = torch.full((shape.size,), math.nan)
                yield Trained(member, shape, nothing, 0, (), str(error))
            else:
                stack.begin(free.pop(), member, *shares)
        stack.leave(free)
        if not stack.runs:
            return
        stack.step()
        free = stack.judge()
        yield from map(stack.trained, free)


def _checked(
    members: Sequence[Member], training: Sample, validation: Sample, recipe: Recipe
) -> tuple[int, int]:
    """Most events of a member, to train and to validate with."""
    inputs = training.x.shape[1]
    if validation.x.shape[1] != inputs:
        raise ValueError(f"{inputs} features to train on, {validation.x.shape[1]} to validate with")
    for member in members:
        unknown = set(member.features or ()) - set(range(inputs))
        if unknown or member.features == ():
            raise ValueError(f"{member}: features are some of 0..{inputs - 1}")
    sizes = [(0, 0)]
    for classes in sorted({member.classes for member in members}):
        for number in classes:
            if not all((events.classes == number).any() for events in (training, validation)):
                raise ValueError(f"class {number} has no events in training or in validation")
        sizes.append((len(training.rows(classes)), len(validation.rows(classes))))
        if sizes[-1][0] < recipe.batch:
            raise ValueError(
                f"classes {classes} have {sizes[-1][0]} events, less than a batch: make it smaller"
            )
    return max(size for size, _ in sizes), max(size for _, size in sizes)


@dataclass
class _Run:
    """A member in the stack, and where it stands."""

    member: Member
    training: Share
    validation: Share
    order: torch.Generator
    batches: int
    done: int = 0
    best_epoch: int = 0
    losses: list[float] = field(default_factory=list)


class _Stack:
    """Places for members, each held by one that trains or free to be taken."""

    def __init__(
        self,
        shape: Perceptron,
        recipe: Recipe,
        training: Sample,
        validation: Sample,
        places: int,
        most: tuple[int, int],
    ) -> None:
        self.runs: dict[int, _Run] = {}  # by place
        self._shape, self._recipe = shape, recipe
        self._x, self._validation_x = training.x, validation.x
        self._parameters, self._best, self._gradient = torch.zeros(3, places, shape.size).unbind()
        self._seen = torch.ones(places, shape.size)  # 0 for weights of features that are not
        self._adam = Adam(places, shape.size)
        self._tables = Tables(places, most[0] // recipe.batch, recipe.batch)
        self._judged = Tables(places, -(-most[1] // recipe.batch), recipe.batch)
        self._workspace = Workspace(shape, places, recipe.batch)

    def begin(self, place: int, member: Member, training: Share, validation: Share) -> None:
        """Put a new member where none trains."""
        order = torch.Generator().manual_seed(member.seed)
        batches = len(training.rows) // self._recipe.batch
        run = _Run(member, training, validation, order, batches)
        self.runs[place] = run
        self._adam.begin(place, member.learning_rate)
        self._parameters[place] = initial(self._shape, member.seed, member.features)
        self._seen[place] = 1
        if member.features is not None:
            hidden = sorted(set(range(self._shape.inputs)) - set(member.features))
            self._shape.views(self._seen)[0][0][place][:, hidden] = 0
        self._judged.fill(place, validation, torch.arange(len(validation.rows)))
        self._shuffle(place)

    def _shuffle(self, place: int) -> None:
        run = self.runs[place]
        order = torch.randperm(len(run.training.rows), generator=run.order)
        self._tables.fill(place, run.training, order[: run.batches * self._recipe.batch])
        run.done = 0

    def step(self) -> None:
        """Move every member by one batch; no place may be free."""
        places = range(len(self.runs))
        batches = [self.runs[place].done for place in places]
        rows, targets, weights = self._tables.take(places, batches)
        x = _gathered(self._x, rows)
        logits = self._workspace.logits(self._parameters, x)
        arriving = logits.sigmoid_().sub_(targets).mul_(weights).div_(self._recipe.batch)
        self._workspace.gradient(self._parameters, x, arriving, self._gradient)
        self._adam.step(self._parameters, self._gradient.mul_(self._seen))
        for run in self.runs.values():
            run.done += 1

    def judge(self) -> list[int]:
        """Validate members whose epoch has ended, and give the places of those that finished."""
        ended = [place for place, run in self.runs.items() if run.done == run.batches]
        finished = []
        for place, loss in zip(ended, self._validation_losses(ended), strict=True):
            run = self.runs[place]
            if loss < min(run.losses, default=math.inf):
                run.best_epoch = len(run.losses) + 1
                self._best[place] = self._parameters[place]
            run.losses.append(loss)
            epochs = len(run.losses)
            stale = epochs - run.best_epoch >= self._recipe.patience
            if stale or epochs == self._recipe.epochs or not math.isfinite(loss):
                finished.append(place)
            else:
                self._shuffle(place)
        return finished

    def _validation_losses(self, places: list[int]) -> list[float]:
        if not places:
            return []
        whole = len(places) == len(self.runs)
        parameters = self._parameters[places]
        workspace = self._workspace
        if not whole:
            workspace = Workspace(self._shape, len(places), self._recipe.batch)
        total = torch.zeros(len(places), dtype=torch.float64)
        for number in range(self._judged.batches):
            rows, targets, weights = self._judged.take(places, [number] * len(places))
            logits = workspace.logits(parameters, _gathered(self._validation_x, rows))
            losses = functional.binary_cross_entropy_with_logits(
                logits, targets, weights, reduction="none"
            )
            total += losses.double().sum(1)  # in double: the same whoever else is judged
        events = torch.tensor([len(self.runs[place].validation.rows) for place in places])
        return (total / events).tolist()

    def trained(self, place: int) -> Trained:
        """What became of the member that finished here."""
        run = self.runs[place]
        failure = None
        if not math.isfinite(run.losses[-1]):
            failure = f"diverged: validation loss {run.losses[-1]} after epoch {len(run.losses)}"
        best = self._best[place].clone()
        if failure:
            best.fill_(math.nan)
        best_epoch = 0 if failure else run.best_epoch
        return Trained(run.member, self._shape, best, best_epoch, tuple(run.losses), failure)

    def leave(self, free: list[int]) -> None:
        """Go on without the places that nobody waits for."""
        if not free:
            return
        kept = [place for place in sorted(self.runs) if place not in free]
        self.runs = {place: self.runs[old] for place, old in enumerate(kept)}
        self._parameters, self._best = self._parameters[kept], self._best[kept]
        self._gradient, self._seen = self._gradient[kept], self._seen[kept]
        for each in (self._adam, self._tables, self._judged):
            each.keep(kept)
        self._workspace = Workspace(self._shape, len(kept), self._recipe.batch)


def _gathered(x: Tensor, rows: Tensor) -> Tensor:
    """[N, D] and [M, B] rows → [M, D, B]."""
    return x.index_select(0, rows.view(-1)).view(*rows.shape, x.shape[1]).mT.contiguous()
