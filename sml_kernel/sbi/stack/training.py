"""Many small networks trained as fast as the machine can; each learns what it would learn alone.

On a CPU a member's epoch is one call of compiled code, in which its numbers stay in the cache
(`alone`); as many train at the same time as torch has threads. On a GPU members are one stack of
batched products (`together`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sml_kernel.sbi.stack import alone, together
from sml_kernel.sbi.stack.batches import Sample
from sml_kernel.sbi.stack.members import Member, Recipe, Trained
from sml_kernel.sbi.stack.perceptrons import Perceptron
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
        Members that train at the same time; None: as many as torch has threads, or as the memory
        of a GPU holds (`slots.members_at_once`). Nothing that a member learns depends on it.
    device
        Where members and events live. Orders and initialisations are drawn on the CPU, and are
        the same everywhere. On a GPU a step is one CUDA graph (not measured on a GPU).

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
    events = _checked(members, training, validation, recipe)
    device = torch.device(device)
    if at_once is None:
        at_once = members_at_once(shape, recipe.batch, events, device)
    way = alone.train if device.type == "cpu" else together.train
    yield from way(members, training, validation, recipe, campaign, at_once, device)


def _checked(
    members: Sequence[Member], training: Sample, validation: Sample, recipe: Recipe
) -> int:
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
    most = 0
    for classes in pairs:
        for number in classes:
            if not all((events.classes == number).any() for events in (training, validation)):
                raise ValueError(f"class {number} has no events in training or in validation")
        events = len(training.rows(classes))
        if events < recipe.batch:
            raise ValueError(
                f"classes {classes} have {events} events, less than a batch: make it smaller"
            )
        most = max(most, events + len(validation.rows(classes)))
    return most
