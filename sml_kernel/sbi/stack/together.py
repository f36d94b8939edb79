"""Many networks as one stack of torch's batched products: on a GPU, whose cores one cannot fill.

A step moves every member by one batch of its own: the matrix products of all are one batched
product, and one Adam holds the state of all. At the end of its epoch a member is judged on
validation events. One that has finished leaves; while members wait the next takes its place, and
when none does the stack goes on with those that are left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sml_kernel.sbi.stack import losses
from sml_kernel.sbi.stack.adam import Adam
from sml_kernel.sbi.stack.batches import Sample, Share, Shares, Tables, WeightError
from sml_kernel.sbi.stack.captured import captured
from sml_kernel.sbi.stack.members import Member, Progress, Recipe, Trained, unlearnable
from sml_kernel.sbi.stack.perceptrons import Perceptron, Workspace, initial


def train(
    members: Sequence[Member],
    training: Sample,
    validation: Sample,
    recipe: Recipe,
    campaign: int,
    at_once: int,
    device: torch.device,
) -> Iterator[Trained]:
    """What `training.train` promises, with so many members in the stack."""
    shape = Perceptron(training.x.shape[1], recipe.hidden, recipe.activation)
    pairs = {member.classes for member in members}
    most = [max(len(of.rows(each)) for each in pairs) for of in (training, validation)]
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
                yield unlearnable(member, shape, error)
            else:
                stack.begin(free.pop(), member, *shares)
        stack.leave(free)
        if not stack.runs:
            return
        stack.advance()
        free = stack.judge()
        yield from map(stack.trained, free)


@dataclass
class _Run:
    """A member in the stack, and where it stands."""

    member: Member
    training: Share
    validation: Share
    order: torch.Generator
    batches: int
    done: int = 0
    progress: Progress = field(default_factory=Progress)


class _Stack:
    """Places for members, each held by one that trains or free to be taken."""

    def __init__(
        self,
        shape: Perceptron,
        recipe: Recipe,
        x: Tensor,
        validation_x: Tensor,
        places: int,
        most: Sequence[int],
        blind: bool,
        device: torch.device,
    ) -> None:
        self.runs: dict[int, _Run] = {}  # by place
        self._shape, self._recipe, self._device = shape, recipe, device
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
            if run.progress.better(loss):
                better.append(place)
            if run.progress.finished(self._recipe):
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
        return run.progress.trained(run.member, self._shape, self._best[place].cpu().clone())

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
