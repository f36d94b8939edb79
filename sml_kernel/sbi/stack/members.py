"""Members of an ensemble: what each differs in, what all share, and what has been trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sml_kernel.sbi.stack.losses import LOSSES
from sml_kernel.sbi.stack.perceptrons import Perceptron, network


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes
    ----------
    seed
        Of its initialisation and of the order of its batches.
    learning_rate
        Of Adam.
    replica
        Of the bootstrap (`bootstrap.poisson_weights`); None: every event once.
    classes
        Numerator and reference: the network learns p_numerator / (p_numerator + p_reference).
    features
        Columns that it sees; None: all.
    """

    seed: int
    learning_rate: float = 1e-3
    replica: int | None = None
    classes: tuple[int, int] = (1, 0)
    features: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """What all members of a stack have in common.

    Attributes
    ----------
    hidden, activation
        See `perceptrons.Perceptron`.
    batch
        Events a step. An epoch leaves out those that make no whole batch, others in each epoch.
    epochs
        At most.
    patience
        Epochs without a lower validation loss after which a member stops.
    loss
        One of `losses.LOSSES`; of training and of validation.
    """

    hidden: tuple[int, ...] = (32, 32)
    activation: str = "ReLU"
    batch: int = 512
    epochs: int = 100
    patience: int = 5
    loss: str = "bce"

    def __post_init__(self) -> None:
        if min(self.batch, self.epochs, self.patience) < 1:
            raise ValueError(f"batch, epochs and patience are at least 1: {self}")
        if self.loss not in LOSSES:
            raise ValueError(f"no loss {self.loss}; there are {', '.join(LOSSES)}")


@dataclass(frozen=True)
class Trained:
    """A member that has finished.

    Attributes
    ----------
    member, shape
        Which it is, and the shape of its network.
    parameters
        [P] of its best epoch, as `perceptrons.Perceptron.views` reads them; nan if it failed.
    best_epoch
        From 1; 0 where there is none.
    losses
        Validation loss after each epoch: the recipe's, weighted and class-balanced.
    failure
        Why it is of no use; None: it is.
    """

    member: Member
    shape: Perceptron
    parameters: Tensor
    best_epoch: int
    losses: tuple[float, ...]
    failure: str | None = None

    def network(self) -> nn.Sequential:
        """The network in plain torch, [B, features that it sees] → [B, 1] logits.

        Raises
        ------
        ValueError
            The member failed.
        """
        if self.failure:
            raise ValueError(f"{self.member} has no network: {self.failure}")
        return network(self.shape, self.parameters, self.member.features)


@dataclass
class Progress:
    """Where a member that trains stands.

    Attributes
    ----------
    losses
        Validation loss after each epoch.
    best_epoch
        Of the least, from 1.
    """

    losses: list[float] = field(default_factory=list)
    best_epoch: int = 0

    def better(self, loss: float) -> bool:
        """Note the loss of an epoch; whether none was less."""
        least = loss < min(self.losses, default=math.inf)
        self.losses.append(loss)
        if least:
            self.best_epoch = len(self.losses)
        return least

    def finished(self, recipe: Recipe) -> bool:
        """No patience is left, or no epoch, or the member has diverged."""
        epochs = len(self.losses)
        stale = epochs - self.best_epoch >= recipe.patience
        return stale or epochs == recipe.epochs or not math.isfinite(self.losses[-1])

    def trained(self, member: Member, shape: Perceptron, best: Tensor) -> Trained:
        """What became of the member, whose best [P] parameters these were."""
        if math.isfinite(self.losses[-1]):
            return Trained(member, shape, best, self.best_epoch, tuple(self.losses))
        epochs = len(self.losses)
        failure = f"diverged: validation loss {self.losses[-1]} after epoch {epochs}"
        nothing = torch.full_like(best, math.nan)
        return Trained(member, shape, nothing, 0, tuple(self.losses), failure)


def unlearnable(member: Member, shape: Perceptron, why: Exception) -> Trained:
    """A member whose events leave nothing to learn."""
    return Trained(member, shape, torch.full((shape.size,), math.nan), 0, (), str(why))
