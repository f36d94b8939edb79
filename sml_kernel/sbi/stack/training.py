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

from sml_kernel.sbi.stack import losses
from sml_kernel.sbi.stack.adam import Adam
from sml_kernel.sbi.stack.batches import Sample, Share, Shares, Tables, WeightError
from sml_kernel.sbi.stack.captured import captured
from sml_kernel.sbi.stack.members import Member, Recipe, Trained
from sml_kernel.sbi.stack.perceptrons import Perceptron, Workspace, initial
from sml_kernel.sbi.stack.slots import members_at_once

__all__ = ["train"]


def train(
    members: Sequence[Member],
    training: Sample,
    validation: Sample,
    recipe: Recipe,
    *,
    campaign: int = 0,
    at_once: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Trained]:
    """Train members, and yield each when it has finished; the caller may stop.

    Alone a member would be trained so, and gets the same numbers: ``torch.manual_seed(seed)``, the
    network, torch.optim.Adam; a generator of its own with the same seed for the order of each
    epoch, ``torch.randperm(n, generator=...)`` of the events of its classes; the loss the mean over
    a batch of the weighted loss.

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
        Members in the stack; None: as many as the cache of a CPU or the memory of a GPU holds
        (`slots.members_at_once`).
    device
        Where the stack lives, its events with it. Orders and initialisations are drawn on the CPU,
        and are the same everywhere. On a GPU a step is one CUDA graph (not measured on a GPU).

    Yields
    ------
    Trained
        Each member once, in the order in which they finish. One that diverged or has nothing to
        learn from says so in its `failure`, and takes no other down.

    Raises
    ------
    ValueError
        Samples of different features, a member with features or classes that are not there, a
        batch larger than a member's events, or a loss that needs joint ratios which are not there
        or are of another pair of classes.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at least 1 member at once, not {at_once}")
    shape = Perceptron(training.x.shape[1], recipe.hidden, recipe.activation)
    most = _checked(members, training, validation, recipe)
    if at_once is None:
        at_once = members_at_once(shape, recipe.batch, sum(most), device=device)
    places = min(at_once, len(members))
    blind = any(member.features is not None for member in members)
    stack = _Stack(shape, recipe, training.x, validation.x, places, most, blind, device)
    seen, judged = (Shares(events, campaign, recipe.loss) for events in (training, validation))
    waiting, free = deque(members), list(range(places))
    while True:
        while free and waiting:
            member = waiting.popleft()
            try:
                shares = seen.of(member), judged.of(member)
            except WeightError as error:
                nothing = torch.full((shape.size,), math.nan)
                yield Trained(member, shape, nothing, 0, (), str(error))
            else:
                stack.begin(free.pop(), member, *shares)
        stack.leave(free)
        if not stack.runs:
            return
        stack.advance()
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
    pairs = sorted({member.classes for member in members})
    if recipe.loss != "bce" and len(pairs) > 1:
        raise ValueError(f"joint ratios are of one pair of classes, not of {pairs}: train each")
    sizes = [(0, 0)]
    for classes in pairs:
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
        x: Tensor,
        validation_x: Tensor,
        places: int,
        most: tuple[int, int],
        blind: bool,
        device: torch.device | str,
    ) -> None:
        self.runs: dict[int, _Run] = {}  # by place
        self._shape, self._recipe, self._device = shape, recipe, torch.device(device)
        self._parameters, self._best, self._gradient = torch.zeros(
            3, places, shape.size, device=device
        ).unbind()
        # 0 for weights of features that a member does not see
        self._seen = torch.ones(places, shape.size, device=device) if blind else None
        self._adam = Adam(places, shape.size, device)
        batch = recipe.batch
        self._tables = Tables(places, most[0] // batch, batch, x.to(device))
        self._judged = Tables(places, -(-most[1] // batch), batch, validation_x.to(device))
        self._prepare(places)

    def _prepare(self, places: int) -> None:
        """What a step of so many members works with."""
        self._workspace = Workspace(self._shape, places, self._recipe.batch, self._device)
        self._at = torch.zeros(places, dtype=torch.int64, device=self._device)
        # made once: views are calls of Python, some 30 a step
        self._maps = self._shape.views(self._parameters)
        self._sums = self._shape.views(self._gradient)
        self._step = captured(self._one_batch, self._device)

    def begin(self, place: int, member: Member, training: Share, validation: Share) -> None:
        """Put a new member where none trains."""
        order = torch.Generator().manual_seed(member.seed)
        batches = len(training.rows) // self._recipe.batch
        run = _Run(member, training, validation, order, batches)
        self.runs[place] = run
        self._adam.begin(place, member.learning_rate)
        self._parameters[place] = initial(self._shape, member.seed, member.features)
        if self._seen is not None:
            self._seen[place] = 1
        if self._seen is not None and member.features is not None:
            hidden = sorted(set(range(self._shape.inputs)) - set(member.features))
            self._shape.views(self._seen)[0][0][place][:, hidden] = 0
        self._judged.fill(place, validation, torch.arange(len(validation.rows)))
        self._shuffle(place)

    def _shuffle(self, place: int) -> None:
        run = self.runs[place]
        order = torch.randperm(len(run.training.rows), generator=run.order)
        self._tables.fill(place, run.training, order[: run.batches * self._recipe.batch])
        run.done = 0

    def advance(self) -> None:
        """Move every member to where the first epoch ends; no place may be free."""
        steps = min(run.batches - run.done for run in self.runs.values())
        places = range(len(self.runs))
        self._at.copy_(self._tables.places(places, [self.runs[place].done for place in places]))
        for _ in range(steps):
            self._step()
        for run in self.runs.values():
            run.done += steps

    def _one_batch(self) -> None:
        x, targets, weights = self._tables.take(self._at)
        logits = self._workspace.logits(self._maps, x)
        arriving = losses.gradient_(self._recipe.loss, logits, targets)
        arriving.mul_(weights).div_(self._recipe.batch)
        self._workspace.gradient(self._maps, x, arriving, self._sums)
        if self._seen is not None:
            self._gradient.mul_(self._seen)
        self._adam.step(self._parameters, self._gradient)
        self._at += 1

    def judge(self) -> list[int]:
        """Validate members whose epoch has ended, and give the places of those that finished."""
        ended = [place for place, run in self.runs.items() if run.done == run.batches]
        finished, better = [], []
        for place, loss in zip(ended, self._validation_losses(ended), strict=True):
            run = self.runs[place]
            if loss < min(run.losses, default=math.inf):
                run.best_epoch = len(run.losses) + 1
                better.append(place)
            run.losses.append(loss)
            epochs = len(run.losses)
            stale = epochs - run.best_epoch >= self._recipe.patience
            if stale or epochs == self._recipe.epochs or not math.isfinite(loss):
                finished.append(place)
            else:
                self._shuffle(place)
        if better:
            self._best[better] = self._parameters[better]
        return finished

    def _validation_losses(self, places: list[int]) -> list[float]:
        if not places:
            return []
        workspace = self._workspace
        if len(places) < len(self.runs):
            workspace = Workspace(self._shape, len(places), self._recipe.batch, self._device)
        maps = self._shape.views(self._parameters[places])
        total = torch.zeros(len(places), dtype=torch.float64, device=self._device)
        at = self._judged.places(places, [0] * len(places))
        for number in range(self._judged.batches):
            x, targets, weights = self._judged.take(at + number)
            logits = workspace.logits(maps, x)
            each = losses.values(self._recipe.loss, logits, targets).mul_(weights)
            total += each.double().sum(1)  # in double: the same whoever else is judged
        events = torch.tensor([len(self.runs[place].validation.rows) for place in places])
        return (total.cpu() / events).tolist()

    def trained(self, place: int) -> Trained:
        """What became of the member that finished here."""
        run = self.runs[place]
        failure = None
        if not math.isfinite(run.losses[-1]):
            failure = f"diverged: validation loss {run.losses[-1]} after epoch {len(run.losses)}"
        best = self._best[place].cpu().clone()
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
        self._gradient = self._gradient[kept]
        self._seen = None if self._seen is None else self._seen[kept]
        for each in (self._adam, self._tables, self._judged):
            each.keep(kept)
        self._prepare(len(kept))
