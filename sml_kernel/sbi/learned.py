"""What inference is made from, as a campaign's networks learned it: ratios, rates, replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel.sbi.campaign import shards
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.problems.labels import ParameterPoint
from sml_kernel.sbi.problems.origins import InputError
from sml_kernel.sbi.problems.yields import yield_ratio

if TYPE_CHECKING:
    from sml_kernel.sbi.campaign.campaign import Campaign
    from sml_kernel.sbi.ensemble import Fit
    from sml_kernel.sbi.problems.problem import Problem


@dataclass(frozen=True)
class Axes:
    """What the classes of a problem are to a likelihood.

    Attributes
    ----------
    processes
        C nominal classes, in order.
    nuisances
        A names, sorted.
    variations
        Process and nuisance → the classes at −1 and at +1.
    """

    processes: tuple[str, ...]
    nuisances: tuple[str, ...]
    variations: dict[tuple[str, str], tuple[str, str]]

    @classmethod
    def of(cls, classes: tuple[str, ...]) -> Axes:
        """From names of classes.

        Raises
        ------
        InputError
            A variation of several nuisances, or by something else than ±1, or one side alone: there
            is nothing to interpolate between.
        """
        points = {name: ParameterPoint.parse(name) for name in classes}
        sides: dict[tuple[str, str], dict[float, str]] = {}
        for name, point in points.items():
            if len(point.shifts) > 1:
                raise InputError(f"{name!r} moves several nuisances: move one at a time")
            for nuisance, value in point.shifts:
                sides.setdefault((point.process, nuisance), {})[value] = name
        for (process, nuisance), found in sides.items():
            if set(found) != {-1.0, 1.0}:
                raise InputError(
                    f"{process!r} has {nuisance} at {sorted(found)}: give the classes "
                    f"{process}@{nuisance}=-1 and {process}@{nuisance}=+1"
                )
        processes = tuple(name for name, point in points.items() if not point.shifts)
        nuisances = tuple(sorted({nuisance for _, nuisance in sides}))
        return cls(
            processes, nuisances, {key: (each[-1.0], each[1.0]) for key, each in sides.items()}
        )


def rates(problem: Problem) -> Rates:
    """Yields of the processes, with Monte Carlo errors, and their variations."""
    axes, yields = Axes.of(problem.classes), problem.yields()
    variation = np.ones((len(axes.processes), len(axes.nuisances), 2))
    for (process, nuisance), sides in axes.variations.items():
        at = axes.processes.index(process), axes.nuisances.index(nuisance)
        variation[at] = [yield_ratio(problem, side, process)[0] for side in sides]
    found = [yields[name] for name in axes.processes]
    return Rates(
        np.array([each.expected for each in found]),
        np.array([each.error for each in found]),
        variation if axes.nuisances else None,
    )


def ratios(
    fit: Fit,
    x: np.ndarray | None,
    weights: np.ndarray | None = None,
    *,
    allow_missing: bool = False,
    progress: bool = True,
) -> Ratios:
    """The ensemble's ratios of all processes and variations.

    Parameters
    ----------
    x, weights
        [N, D] features and [N] weights; None: those of the problem's events, each scored by
        members that never saw it.

    Raises
    ------
    MissingError
        Members are missing, and `allow_missing` was not said.
    """
    axes = Axes.of(fit.campaign.events.problem.classes)
    events = fit.campaign.events.problem.features if x is None else x

    def learned(name: str) -> np.ndarray:
        if name not in dict(fit.pairs):  # the reference
            return np.ones(len(events))
        return fit.ratio(x, name, allow_missing=allow_missing, progress=progress).ratio

    nominal = np.stack([learned(name) for name in axes.processes])
    varied = np.ones((len(axes.processes), len(axes.nuisances), 2, len(events)))
    for (process, nuisance), sides in axes.variations.items():
        at = axes.processes.index(process), axes.nuisances.index(nuisance)
        varied[at] = np.stack([learned(side) for side in sides])
    return Ratios(
        axes.processes, nominal, axes.nuisances, varied if axes.nuisances else None, weights
    )


def replicas(fit: Fit, x: np.ndarray, most: int) -> np.ndarray:
    """Nominal ratios as each replica and initialisation gives them, in the mean over folds.

    Parameters
    ----------
    x
        [N, D] features.
    most
        Replicas at most; where there is no bootstrap, initialisations.

    Returns
    -------
    numpy.ndarray
        [R, I, C, N]; replicas with a member that is missing are left out. Without the bootstrap
        I is 1 and R counts initialisations.
    """
    axes = Axes.of(fit.campaign.events.problem.classes)
    pairs = [pair for pair in fit.pairs if pair[0] in axes.processes]
    found: dict[tuple[int, int], np.ndarray] = {}
    counts: dict[tuple[int, int], int] = {}
    for key, name, ratio in _one_by_one(fit.campaign, pairs, x, most):
        if key not in found:
            found[key] = np.zeros((len(axes.processes), len(x)))
            counts[key] = 0
        found[key][axes.processes.index(name)] += ratio / fit.campaign.folds.count
        counts[key] += 1
    whole = len(pairs) * fit.campaign.folds.count
    starts = sorted({start for _, start in counts})
    complete = [
        number
        for number in sorted({number for number, _ in counts})
        if all(counts.get((number, start), 0) == whole for start in starts)
    ]
    learned = [axes.processes.index(name) for name, _ in pairs]
    array = np.ones((len(complete), len(starts), len(axes.processes), len(x)))
    for r, number in enumerate(complete):
        for i, start in enumerate(starts):
            array[r, i, learned] = found[number, start][learned]
    return array


def _one_by_one(
    campaign: Campaign, pairs: list[tuple[str, str]], x: np.ndarray, most: int
) -> Iterator[tuple[tuple[int, int], str, np.ndarray]]:
    import torch

    from sml_kernel.sbi.stack.evaluation import logits

    plan = campaign.plan()
    bootstrap = (plan.replica >= 0).all()
    number = plan.replica if bootstrap else plan.initialisation
    start = plan.initialisation if bootstrap else plan.initialisation * 0
    plan = plan.assign(number=number, start=start)
    wanted = plan[plan.numerator.isin([name for name, _ in pairs]) & (plan.number < most)]
    seen, there = torch.from_numpy(campaign.events.seen(x)), shards.there(campaign.folder)
    for stack in sorted(set(wanted["stack"]) & there):
        rows = plan[plan["stack"] == stack]
        table = shards.members(campaign.folder, int(stack), rows["key"])
        shape, parameters = shards.parameters(campaign.folder, int(stack), table)
        use = ((rows["number"] < most).to_numpy() & table["failure"].isna().to_numpy()).nonzero()[0]
        said = logits(shape, parameters[use], seen).double().exp().numpy()
        for row, ratio in zip(rows.iloc[use].itertuples(), said, strict=True):
            yield (int(row.number), int(row.start)), row.numerator, ratio
