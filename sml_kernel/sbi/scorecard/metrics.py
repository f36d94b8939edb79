"""What one network is worth, on events that it never saw: figures of many members at once.

Every figure of a member depends on its own logits alone, with the same bits in any company.
Weights are normalised to one in each class, so that classes count alike (CARL). They may be
negative singly: sums and errors Σ w² hold for them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sml_kernel.sbi.scorecard import calibration, closure, ranking

#: Events times members that are judged at a time: arrays of 1 MB, which a cache holds.
_AT_ONCE = 1 << 17


@dataclass(frozen=True, eq=False)
class Held:
    """Events that a member never trained on.

    Attributes
    ----------
    x
        [N, D] features; of those it is judged on, which need not be those that it sees.
    numerator
        [N] bool: of the numerator's class, else of the reference's.
    weights
        [N] float64, may be negative singly.
    exact
        [N] exact log p_numerator/p_reference where it is known.
    """

    x: np.ndarray
    numerator: np.ndarray
    weights: np.ndarray
    exact: np.ndarray | None = None

    def __post_init__(self) -> None:
        events = len(self.x)
        if np.ndim(self.x) != 2:
            raise ValueError(f"features are [N, D], not {list(np.shape(self.x))}")
        for what in ("numerator", "weights", "exact"):
            values = getattr(self, what)
            if values is not None and np.shape(values) != (events,):
                raise ValueError(f"{events} events have {what} of shape {list(np.shape(values))}")
        if self.numerator.dtype != bool:
            raise ValueError(f"numerator is bool, True where it is, not {self.numerator.dtype}")
        for what in ("x", "weights", "exact"):
            values = getattr(self, what)
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{what} has values that are not finite: leave such events out")
        for what, of_class in (("numerator", self.numerator), ("reference", ~self.numerator)):
            total = self.weights[of_class].sum()
            if not total > 0:
                raise ValueError(
                    f"{of_class.sum()} held-out events of the {what} have a total weight of "
                    f"{total:g}: a network is judged on a positive one, give it more events"
                )

    def balanced(self) -> np.ndarray:
        """[N] weights that sum to one in each class."""
        totals = self.weights[self.numerator].sum(), self.weights[~self.numerator].sum()
        return self.weights / np.where(self.numerator, *totals)


def judge(
    logits: np.ndarray,
    held: Held,
    *,
    training_loss: np.ndarray | None = None,
    inflation: float = 0.0,
) -> dict[str, np.ndarray]:
    r"""Judge members on events that they never trained on.

    Parameters
    ----------
    logits
        [M, N] log r̂, float32 or float64.
    held
        The N events.
    training_loss
        [M] class-balanced binary cross-entropy on the training events; None: not known.
    inflation
        κ, variance that the finite *training* sample brings to a network, in units of that of the
        held-out sample; p-values and pulls are those for a variance of 1 + κ. A network that
        follows all fluctuations of its training sample has κ = n_held/n_train, twice that with
        bootstrap weights; a smooth one less. 0 asks whether r̂ is exact, which no trained network
        is, given enough events.

    Returns
    -------
    dict
        [M] values, and [M, D] where a feature is named; nan for a member with a logit that is not
        finite, and where there is nothing to compare with.

        ``bce, bce_error``
            ½ Σ_num w log(1 + e^{−l}) + ½ Σ_ref w log(1 + e^l), its statistical error.
        ``excess, excess_error``
            The same minus that of the exact logits, on the same events: most of the error cancels.
        ``information``
            log 2 − bce of the exact logits: what there is to be learned.
        ``auc, auc_error``
            `ranking.auc`.
        ``normalisation, normalisation_error, normalisation_pull, normalisation_events``
            C = E_ref[r̂], Monte Carlo error, (C − 1)/error, effective number of events.
        ``reliability_chi2, reliability_dof, reliability_p, reliability_pull``
            `calibration.Reliability`; ``reliability_pull`` is the largest of the bins.
        ``overfit, overfit_error``
            bce − training loss. The error is √2 times ``bce_error``: as if the training sample were
            of the same size. It is larger in general, or twice as noisy by its bootstrap.
        ``closure_chi2, closure_dof, closure_p``
            [M, D] χ² of `closure.Closure`.
        ``wasserstein, wasserstein_expected, wasserstein_p``
            [M, D] distance in standard deviations, what statistics alone cause, and its p-value.

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape[1] != len(held.x):
        raise ValueError(f"logits are [M, {len(held.x)}], not {list(logits.shape)}")
    if training_loss is not None and np.shape(training_loss) != logits.shape[:1]:
        raise ValueError(f"{len(logits)} members have {np.size(training_loss)} training losses")
    common = _Common.of(held)
    step = max(1, _AT_ONCE // len(held.x))
    starts = range(0, max(len(logits), 1), step)
    blocks = [_judged(logits[each : each + step], common, inflation) for each in starts]
    found = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    losses = np.nan if training_loss is None else np.asarray(training_loss, float)
    found["overfit"] = found["bce"] - losses
    found["overfit_error"] = np.sqrt(2) * found["bce_error"]
    return found


def columns(judged: dict[str, np.ndarray], features: Sequence[str]) -> dict[str, np.ndarray]:
    """Figures as columns of a table, those of features as ``closure_p:NAME``.

    Parameters
    ----------
    judged
        From `judge`.
    features
        D names.
    """
    found = {}
    for name, values in judged.items():
        if values.ndim == 1:
            found[name] = values
        else:
            pairs = zip(features, values.T, strict=True)
            found.update({f"{name}:{feature}": each for feature, each in pairs})
    return found


@dataclass(frozen=True, eq=False)
class _Common:
    """What all members have in common: events in an order with those of the numerator first."""

    order: np.ndarray
    numerator: np.ndarray
    weights: np.ndarray
    grid: closure.Grid
    exact_losses: np.ndarray | None

    @classmethod
    def of(cls, held: Held) -> _Common:
        order = np.argsort(~held.numerator, kind="stable")
        numerator, weights = held.numerator[order], held.balanced()[order]
        exact = None if held.exact is None else _losses(held.exact[None, order], numerator)[0]
        return cls(
            order, numerator, weights, closure.grid(held.x[order], numerator, weights), exact
        )

    @property
    def classes(self) -> tuple[slice, slice]:
        """Where the numerator's events are, and the reference's."""
        middle = int(self.numerator.sum())
        return slice(None, middle), slice(middle, None)


def _judged(logits: np.ndarray, common: _Common, inflation: float) -> dict[str, np.ndarray]:
    broken = ~np.isfinite(logits).all(axis=1)
    # take, not [:, order]: rows must lie in memory one by one, so that sums have the same bits
    logits = np.where(broken[:, None], 0, np.take(logits, common.order, axis=1))
    found = _entropy(logits, common)
    found["auc"], found["auc_error"] = ranking.auc(logits, common.numerator, common.weights)
    _, reference = common.classes
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratios = np.exp(logits[:, reference].astype(float))
        found |= _normalisation(ratios, common.weights[reference], inflation)
        found |= _reliability(logits, common, inflation)
        found |= _closure(ratios * common.weights[reference], common, inflation)
    for values in found.values():
        values[broken] = np.nan
    return found


def _losses(logits: np.ndarray, numerator: np.ndarray) -> np.ndarray:
    """[M, N] −log of the probability that the true class is given."""
    wrong = np.where(numerator, -logits, logits).astype(float)
    # log(1 + e^wrong) without overflow
    return np.maximum(wrong, 0) + np.log(1 + np.exp(-np.abs(wrong)))


def _entropy(logits: np.ndarray, common: _Common) -> dict[str, np.ndarray]:
    losses = _losses(logits, common.numerator)
    bce, error = _balanced_mean(losses, common)
    nothing = np.full(len(logits), np.nan)
    found = {"bce": bce, "bce_error": error, "excess": nothing, "excess_error": nothing.copy()}
    found["information"] = nothing.copy()
    if common.exact_losses is not None:
        found["excess"], found["excess_error"] = _balanced_mean(
            losses - common.exact_losses, common
        )
        found["information"] = np.log(2) - (bce - found["excess"])
    return found


def _balanced_mean(values: np.ndarray, common: _Common) -> tuple[np.ndarray, np.ndarray]:
    """[M, N] → mean over both classes alike, and its error."""
    means, variances = [], []
    for of_class in common.classes:
        weights, mine = common.weights[of_class], values[:, of_class]
        mean = (weights * mine).sum(axis=1)
        means.append(mean)
        variances.append(((weights * (mine - mean[:, None])) ** 2).sum(axis=1))
    return sum(means) / 2, np.sqrt(sum(variances)) / 2


def _normalisation(
    ratios: np.ndarray, weights: np.ndarray, inflation: float
) -> dict[str, np.ndarray]:
    mean, error, effective = calibration.normalisation(ratios, weights)
    return {
        "normalisation": mean,
        "normalisation_error": error,
        "normalisation_pull": (mean - 1) / (error * np.sqrt(1 + inflation)),
        "normalisation_events": effective,
    }


def _reliability(logits: np.ndarray, common: _Common, inflation: float) -> dict[str, np.ndarray]:
    found = calibration.reliability(logits, common.numerator, common.weights)
    return {
        "reliability_chi2": found.chi2,
        "reliability_dof": found.dof.astype(float),
        "reliability_p": found.p_value(inflation),
        "reliability_pull": found.pull,
    }


def _closure(moved: np.ndarray, common: _Common, inflation: float) -> dict[str, np.ndarray]:
    found = closure.compare(common.grid, moved)
    return {
        "closure_chi2": found.chi2,
        "closure_dof": np.broadcast_to(found.dof, found.chi2.shape).astype(float),
        "closure_p": found.chi2_p(inflation),
        "wasserstein": found.distance,
        "wasserstein_expected": found.expected,
        "wasserstein_p": found.distance_p(inflation),
    }
