"""Members trained one by one on a CPU, each by compiled code.

A network's step stays in the cache of a core. In one run on one core of an AMD EPYC 7003, start-up
of members included, this took 1/1.2 to 1/1.3 of the time of a stack of batched products (4 → 2x16
with batch 128, 16 → 3x64 with 256, 16 → 4x100 with 2048). Members that train at the same time are
in threads of their own, which numba's code lets run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch

from sml_kernel.sbi.stack import compiled, losses
from sml_kernel.sbi.stack.batches import Sample, Share, Shares, WeightError
from sml_kernel.sbi.stack.layout import Events, layout, space, state
from sml_kernel.sbi.stack.members import Member, Progress, Recipe, Trained, unlearnable
from sml_kernel.sbi.stack.perceptrons import Perceptron, initial


def train(
    members: Sequence[Member],
    training: Sample,
    validation: Sample,
    recipe: Recipe,
    campaign: int,
    at_once: int,
    device: torch.device,
) -> Iterator[Trained]:
    """What `training.train` promises, with a thread for each of the members that train at once."""
    shape = Perceptron(training.x.shape[1], recipe.hidden, recipe.activation)
    seen, judged = (Shares(events, campaign, recipe.loss) for events in (training, validation))
    x = training.x.numpy(), validation.x.numpy()

    def begun() -> Iterator[_Run | Trained]:
        # not in a thread: bootstrap weights are kept from member to member, and initialisation
        # goes by torch's one generator
        for member in members:
            try:
                yield _Run(member, shape, recipe, (seen.of(member), judged.of(member)), x)
            except WeightError as error:
                yield unlearnable(member, shape, error)

    if at_once == 1:
        yield from (each.finished() if isinstance(each, _Run) else each for each in begun())
        return
    with ThreadPoolExecutor(at_once) as threads:
        running: set[Future[Trained]] = set()
        for each in begun():
            if isinstance(each, Trained):
                yield each
                continue
            running.add(threads.submit(each.finished))
            if len(running) == at_once:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        yield from (each.result() for each in wait(running).done)


class _Run:
    """A member, and what it trains with."""

    def __init__(
        self,
        member: Member,
        shape: Perceptron,
        recipe: Recipe,
        shares: tuple[Share, Share],
        x: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self._member, self._shape, self._recipe = member, shape, recipe
        self._training, self._validation = shares
        # a feature that is not seen is no input, and its weights stay 0
        columns = np.array(sorted(set(member.features or range(shape.inputs))))
        kept = torch.zeros(1, shape.size)
        for place, (weight, bias) in enumerate(shape.views(kept)):
            weight[:, :, slice(None) if place else columns] = 1
            bias[:] = 1
        self._kept = kept[0].bool()
        parameters = initial(shape, member.seed, member.features)[self._kept]
        self._net = layout(len(columns), shape.hidden)
        self._state = state(self._net, parameters.numpy())
        self._space = space(self._net, recipe.batch, trains=True)
        share = self._training
        arrays = (each.numpy() for each in (share.rows, share.targets, share.weights))
        self._events = Events(x[0], columns, *arrays)
        rows = self._validation.rows.numpy()
        self._columns = np.ascontiguousarray(x[1][rows[:, None], columns].T)

    def finished(self) -> Trained:
        """Train to the end."""
        member, recipe, progress = self._member, self._recipe, Progress()
        order, steps = torch.Generator().manual_seed(member.seed), 0
        best = torch.zeros(self._shape.size)
        while not progress.losses or not progress.finished(recipe):
            shuffled = torch.randperm(len(self._training.rows), generator=order).numpy()
            steps += compiled.epoch(
                self._net,
                recipe.activation,
                recipe.loss,
                self._state,
                self._space,
                self._events,
                shuffled,
                recipe.batch,
                steps,
                member.learning_rate,
            )
            parameters = self._state.parameters[self._net.places]
            if progress.better(self._loss(parameters)):
                best[self._kept] = torch.from_numpy(parameters)
        return progress.trained(member, self._shape, best)

    def _loss(self, parameters: np.ndarray) -> float:
        """Of validation, the sum in double."""
        activation, share = self._recipe.activation, self._validation
        (logits,) = compiled.evaluate(self._net, activation, parameters[None], self._columns)
        each = losses.values(self._recipe.loss, torch.from_numpy(logits), share.targets)
        return (each.mul_(share.weights).double().sum() / len(logits)).item()
