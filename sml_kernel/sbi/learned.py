"""What inference is made from, as a campaign's networks learned it: ratios, rates, replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel.sbi.campaign import shards
from sml_kernel.sbi.likelihood.norms import ALPHAS, log_norms
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.problems.labels import ParameterPoint
from sml_kernel.sbi.problems.origins import InputError
from sml_kernel.sbi.problems.yields import yield_ratio
from sml_kernel.sbi.stack.bootstrap import poisson_weights

if TYPE_CHECKING:
    import torch

    from sml_kernel.sbi.campaign.campaign import Campaign
    from sml_kernel.sbi.campaign.stored import Stored
    from sml_kernel.sbi.fit import Fit
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
    """The ensemble's ratios of all processes and variations, normalised out of fold.

    Over the problem's own events, r̂_c is divided by its `normalisation`, each variation ĝ by its
    mean E_c[ĝ], and what is interpolated between them by its means too (`Ratios.norms`). Learned
    ones miss E_c = 1 by some thousandths, and N events gain N ln E_c: with 5,000 events and 1.002
    that is 10 units of ln L for each σ of a nuisance. `fit.Fit.ratio` gives ratios as learned.

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
    problem = fit.campaign.events.problem
    axes, events = Axes.of(problem.classes), problem.features if x is None else x

    def learned(name: str, at: np.ndarray | None) -> np.ndarray:
        return fit.ratio(at, name, allow_missing=allow_missing, progress=progress).ratio

    nominal = np.ones((len(axes.processes), len(events)))  # of the reference
    for name, reference in [pair for pair in fit.pairs if pair[0] in axes.processes]:
        rows = np.isin(problem.labels, [problem.classes.index(each) for each in (name, reference)])
        ours = problem.labels[rows] == problem.classes.index(name)
        scale = normalisation(learned(name, None)[rows], ours, problem.weights[rows])
        nominal[axes.processes.index(name)] = learned(name, x) / scale
    varied = np.ones((len(axes.processes), len(axes.nuisances), 2, len(events)))
    norms = np.zeros((len(axes.processes), len(axes.nuisances), len(ALPHAS)))
    for (process, nuisance), sides in axes.variations.items():
        at = axes.processes.index(process), axes.nuisances.index(nuisance)
        mine = problem.labels == problem.classes.index(process)
        weights_c = problem.weights[mine]
        own = np.stack([learned(side, None)[mine] for side in sides])
        means = (own @ weights_c / weights_c.sum())[:, None]
        varied[at] = np.stack([learned(side, x) for side in sides]) / means
        low, high = own / means
        norms[at] = log_norms(low, high, weights_c)
    if not axes.nuisances:
        return Ratios(axes.processes, nominal, weights=weights)
    return Ratios(axes.processes, nominal, axes.nuisances, varied, weights, norms)


def normalisation(ratio: np.ndarray, of_numerator: np.ndarray, weights: np.ndarray) -> float:
    r"""C by which a learned ratio r̂ is divided, from events that its networks never saw.

    .. math::
        \frac{1}{W_c} \sum_{i \in c} \frac{w_i}{1 + \hat r_i/C} =
        \frac{1}{W_\mathrm{ref}} \sum_{i \in \mathrm{ref}} \frac{w_i \hat r_i/C}{1 + \hat r_i/C}

    Bennett's acceptance ratio (J. Comput. Phys. 22 (1976) 245): the intercept that a logistic
    regression on ln r̂ would have, the best estimate there is, and 1 for a ratio of densities. The
    plain mean of r̂ over the reference is the same C in the limit, but a few events of its tail
    make it: for δ = 2 and 5,000 events a class it is off by a tenth, which moves a fraction .3 by
    .02, against .006 with this C (and without any; `docs/likelihood.md`).

    Parameters
    ----------
    ratio
        [N] r̂ of events of both classes.
    of_numerator
        [N] which of them are of the numerator.
    weights
        [N] of the events.

    Raises
    ------
    InputError
        There is no such C within e^±10.
    """
    from scipy import optimize, special

    balanced = np.where(of_numerator, weights, -weights).astype(float)
    for each in (of_numerator, ~of_numerator):
        balanced[each] /= abs(balanced[each].sum())
    signed = np.where(of_numerator, -1, 1) * np.log(ratio)

    def excess(log_c: float) -> float:
        return float(balanced @ special.expit(signed + np.where(of_numerator, log_c, -log_c)))

    low, high = excess(-10.0), excess(10.0)
    if not low * high < 0:
        raise InputError(
            f"ratios from {ratio.min():.3g} to {ratio.max():.3g} cannot be normalised: "
            "look at their networks"
        )
    return float(np.exp(optimize.brentq(excess, -10.0, 10.0, xtol=1e-7)))


def replicas(fit: Fit, x: np.ndarray, most: int) -> np.ndarray:
    """Nominal ratios as each replica and initialisation gives them, in the mean over folds.

    Each network's are divided by a `normalisation` of its own, on the events of its fold that it
    never saw, with its replica's bootstrap weights: what these are off by in a finite sample
    belongs to the spread.

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

    events, plan = campaign.events, campaign.plan()
    fold = campaign.folds.of(events.problem.event_ids)
    bootstrap = (plan.replica >= 0).all()
    number = plan.replica if bootstrap else plan.initialisation
    start = plan.initialisation if bootstrap else plan.initialisation * 0
    plan = plan.assign(number=number, start=start)
    wanted = plan[plan.numerator.isin([name for name, _ in pairs]) & (plan.number < most)]
    seen, there = torch.from_numpy(events.seen(x)), shards.there(campaign.folder)
    for stack in sorted(set(wanted["stack"]) & there):
        rows = plan[plan["stack"] == stack]
        table = shards.members(campaign.folder, int(stack), rows["key"])
        shape, parameters = shards.parameters(campaign.folder, int(stack), table)
        use = ((rows["number"] < most).to_numpy() & table["failure"].isna().to_numpy()).nonzero()[0]
        first = rows.iloc[0]
        held = _Held.of(events, (first.numerator, first.reference), fold == first.fold)
        own = logits(shape, parameters[use], held.x).double().exp().numpy()
        said = logits(shape, parameters[use], seen).double().exp().numpy()
        for row, of_held, ratio in zip(rows.iloc[use].itertuples(), own, said, strict=True):
            scale = held.normalisation(of_held, campaign.folds.campaign, int(row.replica))
            yield (int(row.number), int(row.start)), row.numerator, ratio / scale


@dataclass(frozen=True, eq=False)
class _Held:
    """Events of two classes in a fold: as networks see them, of the numerator or not, and named."""

    x: torch.Tensor
    of_numerator: np.ndarray
    weights: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(cls, events: Stored, pair: tuple[str, str], part: np.ndarray) -> _Held:
        import torch

        problem = events.problem
        numerator, reference = (problem.classes.index(name) for name in pair)
        rows = part & np.isin(problem.labels, (numerator, reference))
        x = torch.from_numpy(events.seen(problem.features[rows]))
        ours, ids = problem.labels[rows] == numerator, problem.event_ids[rows]
        return cls(x, ours, problem.weights[rows], ids)

    def normalisation(self, ratio: np.ndarray, campaign: int, replica: int) -> float:
        """Of one network; `replica` is below zero where there is no bootstrap."""
        if replica < 0:
            return normalisation(ratio, self.of_numerator, self.weights)
        (times,) = poisson_weights(campaign, [replica], self.ids)
        return normalisation(ratio, self.of_numerator, self.weights * times)
