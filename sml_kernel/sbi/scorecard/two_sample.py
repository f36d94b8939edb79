r"""Can a classifier tell reweighted reference events from events of the numerator?

The classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545) sees what histograms of
single features do not: correlations. If r̂ is right, no classifier beats balanced accuracy ½ on
events that it has not seen, where it is ½ ± 1/(2 √n), with n = 4/(1/n_num + 1/n_ref) of the
effective events (Σw)²/Σw² of both classes, after reweighting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sml_kernel.sbi.scorecard.metrics import Held
from sml_kernel.sbi.stack.batches import sample
from sml_kernel.sbi.stack.members import Member, Recipe
from sml_kernel.sbi.stack.training import train


@dataclass(frozen=True)
class TwoSample:
    """What the classifier reached.

    Attributes
    ----------
    accuracy, error
        Balanced accuracy, ½ if the samples are alike, and its statistical error in that case.
    effective
        n, effective number of events.
    """

    accuracy: float
    error: float
    effective: float

    @property
    def pull(self) -> float:
        """(accuracy − ½)/error."""
        return (self.accuracy - 0.5) / self.error


def classifier_two_sample(
    held: Held,
    log_ratio: np.ndarray,
    *,
    folds: int = 2,
    hidden: Sequence[int] = (32, 32),
    epochs: int = 20,
    batch: int = 256,
    seed: int = 0,
) -> TwoSample:
    """Train networks on reweighted events, each judged where it was not trained.

    Parameters
    ----------
    held
        Events that the ratio was not trained on.
    log_ratio
        [N] log r̂, e.g. of an ensemble.
    folds
        Parts of the events: a network for each, trained on the others, of which every fifth event
        says when to stop.
    hidden, epochs, batch, seed
        Of the networks (`Recipe`, `Member`).

    Raises
    ------
    ValueError
        Fewer than 2 folds, a log ratio of another length or that is not finite, or a network that
        failed.
    """
    if folds < 2:
        raise ValueError(f"at least 2 folds, to judge where it was not trained, not {folds}")
    if np.shape(log_ratio) != held.weights.shape:
        raise ValueError(f"log_ratio is [{len(held.x)}], not {list(np.shape(log_ratio))}")
    with np.errstate(over="ignore"):
        weights = held.weights * np.where(held.numerator, 1, np.exp(log_ratio))
    moved = Held(held.x, held.numerator, weights).balanced()
    x = (held.x - held.x.mean(axis=0)) / np.where(held.x.std(axis=0) > 0, held.x.std(axis=0), 1)
    of_numerator = np.empty(len(x), bool)
    fold = np.random.default_rng(seed).permutation(len(x)) % folds
    recipe = Recipe(hidden=tuple(hidden), batch=batch, epochs=epochs, patience=3)
    for number in range(folds):
        judged = fold == number
        network = _trained(x, held.numerator, moved, np.flatnonzero(~judged), recipe, seed)
        with torch.no_grad():
            logits = network(torch.as_tensor(x[judged], dtype=torch.float32))[:, 0]
        of_numerator[judged] = logits.numpy() > 0
    return _accuracy(of_numerator == held.numerator, held.numerator, moved)


def _trained(
    x: np.ndarray,
    numerator: np.ndarray,
    weights: np.ndarray,
    where: np.ndarray,
    recipe: Recipe,
    seed: int,
) -> nn.Module:
    """A network, [n, D] → [n, 1] logits, trained on some events."""
    stops = np.arange(len(where)) % 5 == 0
    training, validation = (
        sample(x[rows], numerator[rows].astype(int), weights[rows], ids=rows)
        for rows in (where[~stops], where[stops])
    )
    (trained,) = train([Member(seed, 3e-3)], training, validation, recipe)
    if trained.failure:
        raise ValueError(f"the two-sample test has no classifier: {trained.failure}")
    return trained.network()


def _accuracy(right: np.ndarray, numerator: np.ndarray, weights: np.ndarray) -> TwoSample:
    accuracies, inverse = [], 0.0
    for of_class in (numerator, ~numerator):
        accuracies.append(weights[of_class] @ right[of_class])
        inverse += float(weights[of_class] @ weights[of_class])  # of weights that sum to one
    effective = 4 / inverse
    return TwoSample(float(np.mean(accuracies)), 0.5 / np.sqrt(effective), effective)
