r"""Where the spread of an ensemble comes from, and how many members a target needs.

R bootstrap replicas of the training sample, each with I initialisations, give y_{ri}. In the
two-way random-effects model

.. math::
    y_{ri} = μ + b_r + a_i + e_{ri}

b has the variance of the training sample (bootstrap), a of the initialisation, and e of their
interaction, with all that is not repeatable. With mean squares MS of rows, columns and the rest the
unbiased estimates are (Searle, Casella, McCulloch, Variance Components, 1992, chapter 4)

.. math::
    σ_e² = MS_e \qquad σ_b² = (MS_b - MS_e)/I \qquad σ_a² = (MS_a - MS_e)/R

An unbiased estimate of a small variance is negative about half of the time. It is left so: clipped
ones would be too large in the mean.

Errors are by the jackknife: of σ_b² by leaving out a replica at a time, as initialisations do not
enter it; of σ_a² by leaving out an initialisation; of σ_e², whose cells fluctuate alone, by either,
and the mean of both variances is taken.

The training sample is one, and σ_b² is the variance that it brings to the result however many
networks there are. What a larger ensemble removes is the error of its own mean: if each replica has
initialisations of its own (σ_a² + σ_e²)/(R I) + σ_b²/R, the last as replicas are drawn too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Components:
    """Variances of estimates, by where they come from; made by `components`.

    Attributes
    ----------
    bootstrap, initialisation, interaction
        […] σ_b², σ_a² and σ_e² in the square of the unit of the estimates. May be negative.
    bootstrap_error, initialisation_error, interaction_error
        […] their errors by the jackknife.
    replicas, initialisations
        R and I of the design.
    """

    bootstrap: np.ndarray
    initialisation: np.ndarray
    interaction: np.ndarray
    bootstrap_error: np.ndarray
    initialisation_error: np.ndarray
    interaction_error: np.ndarray
    replicas: int
    initialisations: int

    def finite(
        self,
        replicas: int | None = None,
        initialisations: int | None = None,
        *,
        crossed: bool = False,
    ) -> np.ndarray:
        """[…] variance of the mean over an ensemble that is due to its finite size.

        Parameters
        ----------
        replicas, initialisations
            Of the ensemble, I for each replica; None: of the design.
        crossed
            All replicas have the same I initialisations, as in the design; False: each its own.
        """
        replicas = replicas or self.replicas
        initialisations = initialisations or self.initialisations
        seeds = initialisations if crossed else replicas * initialisations
        members = replicas * initialisations
        return self.bootstrap / replicas + self.initialisation / seeds + self.interaction / members

    def total(
        self,
        replicas: int | None = None,
        initialisations: int | None = None,
        *,
        crossed: bool = False,
    ) -> np.ndarray:
        """[…] variance of the ensemble's result: that of the training sample, and `finite`."""
        return self.bootstrap + self.finite(replicas, initialisations, crossed=crossed)

    @property
    def negative(self) -> tuple[str, ...]:
        """Names of components with an estimate below zero: too small to be seen in this design."""
        names = ("bootstrap", "initialisation", "interaction")
        return tuple(name for name in names if (np.asarray(getattr(self, name)) < 0).any())

    def __repr__(self) -> str:
        lines = [f"Components of {self.replicas} replicas × {self.initialisations} initialisations"]
        if np.ndim(self.bootstrap):
            return f"{lines[0]}, for each of {self.bootstrap.size:,} estimates"
        for name in ("bootstrap", "initialisation", "interaction"):
            variance, error = getattr(self, name), getattr(self, f"{name}_error")
            sigma = f"σ = {math.sqrt(variance):.3g}" if variance >= 0 else "not seen"
            lines.append(f"  {name:14} σ² = {variance:.3g} ± {error:.2g}  {sigma}")
        return "\n".join(lines)


def components(estimates: np.ndarray) -> Components:
    """Split the variance of a crossed design.

    Parameters
    ----------
    estimates
        [R, I, …], e.g. of μ̂, or of logits of events; R and I at least 2.

    Raises
    ------
    ValueError
        A design that is too small, or with values that are not finite: a member that is missing
        makes the design incomplete, leave out its replica.
    """
    y = np.asarray(estimates, float)
    if y.ndim < 2 or min(y.shape[:2]) < 2:
        raise ValueError(
            f"estimates have shape {list(y.shape)}: a crossed design is [R, I, …] with at least 2 "
            "replicas and 2 initialisations of each, e.g. 12 × 5"
        )
    bad = np.argwhere(~np.isfinite(y))
    if len(bad):
        raise ValueError(
            f"replica {bad[0][0]}, initialisation {bad[0][1]} is not finite: leave out the "
            "replicas with a member that is missing"
        )
    errors = _jackknife(y)
    return Components(*_components(y), *errors, *y.shape[:2])


def _components(y: np.ndarray) -> np.ndarray:
    """[R, I, …] → [3, …] variances of bootstrap, initialisation and interaction."""
    R, I = y.shape[:2]  # noqa: E741
    rows, columns = y.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True)
    mean = y.mean(axis=(0, 1), keepdims=True)
    rest = ((y - rows - columns + mean) ** 2).sum(axis=(0, 1)) / max((R - 1) * (I - 1), 1)
    of_rows = I * ((rows - mean) ** 2).sum(axis=(0, 1)) / max(R - 1, 1)
    of_columns = R * ((columns - mean) ** 2).sum(axis=(0, 1)) / max(I - 1, 1)
    return np.stack([(of_rows - rest) / I, (of_columns - rest) / R, rest])


def _jackknife(y: np.ndarray) -> np.ndarray:
    """[3, …] errors; nan where leaving one of two out leaves nothing to compare."""
    variances = []
    for axis in (0, 1):
        count = y.shape[axis]
        left = np.stack([_components(np.delete(y, each, axis)) for each in range(count)])
        variance = (count - 1) / count * ((left - left.mean(axis=0)) ** 2).sum(axis=0)
        variances.append(variance if count > 2 else np.full(variance.shape, np.nan))
    by_replica, by_initialisation = variances
    interaction = (by_replica[2] + by_initialisation[2]) / 2
    return np.sqrt(np.stack([by_replica[0], by_initialisation[1], interaction]))


def members_needed(
    components: Components,
    target_sigma: float,
    *,
    initialisations: int = 1,
    training_sample: bool = True,
) -> int:
    """Members of an ensemble whose result has a given uncertainty, at least `initialisations`.

    Parameters
    ----------
    components
        Of the quantity of which the uncertainty is wanted, as a single number.
    target_sigma
        In the unit of the estimates.
    initialisations
        I for each replica. Members do most with 1, as replicas average over initialisations too.
    training_sample
        Whether the uncertainty contains that of the training sample, which no ensemble removes;
        False: that of the finite ensemble alone.

    Raises
    ------
    ValueError
        The training sample alone gives more than the target.
    """
    if np.ndim(components.bootstrap):
        raise ValueError("members are needed for one number: give components of one estimate")
    if not target_sigma > 0:
        raise ValueError(f"the target is above 0, not {target_sigma}")
    bootstrap, rest = (
        max(float(each), 0.0)  # what is not seen asks for no members
        for each in (components.bootstrap, components.initialisation + components.interaction)
    )
    room = target_sigma**2 - (bootstrap if training_sample else 0.0)
    if room <= 0:
        raise ValueError(
            f"the training sample alone gives σ = {math.sqrt(bootstrap):.3g}, not less than the "
            f"target {target_sigma:.3g}: no number of members helps, more training events do"
        )
    replicas = math.ceil((bootstrap + rest / initialisations) / room * (1 - 1e-12))
    return initialisations * max(replicas, 1)
