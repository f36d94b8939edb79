"""From data to an interval, with the ensemble's own uncertainty: `Ensemble.fit` … `Fit.infer`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel import records
from sml_kernel.sbi import learned
from sml_kernel.sbi.likelihood.impacts import Impacts, rank_impacts
from sml_kernel.sbi.likelihood.intervals import ONE_SIGMA, Intervals, confidence_intervals
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.refits import Refits, refit
from sml_kernel.sbi.likelihood.strengths import Strengths, signal_strength
from sml_kernel.sbi.problems.origins import InputError
from sml_kernel.sbi.scorecard.spread import Components, components

if TYPE_CHECKING:
    from sml_kernel.sbi.fit import Fit
    from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
    from sml_kernel.sbi.likelihood.workspace import ControlRegions

#: Replicas that data are fitted again with: their spread is known to a tenth.
REPLICAS = 50


@dataclass(frozen=True, eq=False)
class Inference:
    """A measurement, and what it is made of.

    Attributes
    ----------
    intervals
        The estimate and its intervals, the networks' uncertainty among the nuisances.
    impacts
        Of the nuisances; None where there are none.
    refits
        The same data by each replica of the networks; None where none was asked for.
    components
        Their variance by its sources, where the design is crossed.
    spread
        σ of the estimate that is due to the finite training sample and the finite ensemble.
    members
        How many of the members were used, in words.
    scorecard
        What the newest one of the fit came to, in words.
    run
        The record: rows ``measurement`` (what it comes to, and where q is cut by Wilks), ``fit``,
        ``scan``, ``interval``, ``belt``, ``impact``, ``refit``, ``component``.
    """

    intervals: Intervals
    impacts: Impacts | None
    refits: Refits | None
    components: Components | None
    spread: float
    members: str
    scorecard: str
    run: records.Run

    @property
    def folder(self) -> Path:
        """Of the record."""
        return self.run.folder

    def __repr__(self) -> str:
        best = self.intervals.estimate
        name = best.parameters[0]
        lines = [f"{name} = {best.value:.4g} ± {best.error:.2g}, networks' share {self.spread:.2g}"]
        for each in (self.intervals.wilks, self.intervals.neyman):
            if each is not None:
                lines.append(
                    f"  {each.method:7}[{each.low:.4g}, {each.high:.4g}] at "
                    f"{self.intervals.level:.2%}"
                )
        lines += [f"  {best.reason}"] if best.reason else []
        if self.components is not None and not self.spread:
            lines += [
                "  the networks' share is too small for this design to show: its estimate is < 0"
            ]
        lines += [f"  {self.members}; {self.scorecard}", f"  recorded in {self.run.folder}"]
        return "\n".join(lines)


def infer(
    fit: Fit,
    data: np.ndarray,
    *,
    weights: np.ndarray | None,
    strengths: Strengths | None,
    mode: str,
    rates: Rates | None,
    control: ControlRegions | None,
    intervals: str,
    level: float,
    spread: float | None,
    toys: int,
    seed: int,
    allow_missing: bool,
    progress: bool,
) -> Inference:
    """See `fit.Fit.infer`."""
    found = learned.ratios(fit, data, weights, allow_missing=allow_missing, progress=progress)
    strengths = strengths or signal_strength(found.processes, found.processes[:1])
    rates = rates or learned.rates(fit.campaign.events.problem)
    if mode == "shape":  # yields are not known to be those of the data
        rates = replace(rates, errors=None)
    plain = Likelihood(found, rates, strengths, mode, control=control)
    again, parts = None, None
    if spread is None:
        again, parts, spread = _spread(fit, data, plain, progress)
    model = Likelihood(found, rates, strengths, mode, spread=spread, control=control)
    pool = _pool(fit, allow_missing, progress) if intervals == "neyman" else None
    made = confidence_intervals(
        model, pool, method=intervals, level=level, toys=toys, seed=seed, progress=progress
    )
    nuisances = len(model.parameters) > 1 and made.estimate.valid
    impacts = rank_impacts(model, made.estimate) if nuisances else None
    asked = {"events": len(data), "mode": mode, "method": intervals, "level": level, "toys": toys}
    members, judged = str(fit.progress()), _judged(fit)
    asked |= {"spread": spread, "members": members, "scorecard": judged}
    run = fit.campaign.run.part("inferences", kind="inference", parameters=asked, seed=seed)
    result = Inference(made, impacts, again, parts, spread, members, judged, run)
    _record(result)
    return result


def _spread(
    fit: Fit, data: np.ndarray, plain: Likelihood, progress: bool
) -> tuple[Refits, Components | None, float]:
    """Refits by replica, and σ of the ensemble's estimate."""
    array = learned.replicas(fit, data, REPLICAS)
    replicas, starts = array.shape[:2]
    if replicas < 2:
        raise InputError(
            f"{replicas} complete replicas cannot show the networks' spread: train more members, "
            "or give spread=0 to leave it out"
        )
    again = refit(plain, array.reshape(-1, *array.shape[2:]), progress=progress)
    if starts < 2:
        return again, None, again.sigma
    parts = components(again.values.reshape(replicas, starts))
    design = fit.campaign.parameters["design"]
    total = parts.total(design["replicas"], design["initialisations"], crossed=True)
    return again, parts, float(np.sqrt(max(float(total), 0.0)))


def _judged(fit: Fit) -> str:
    for folder in sorted(fit.folder.glob("scorecards/[0-9]*"), reverse=True):
        passed = records.Run(folder).provenance().get("passed")
        if passed is not None:
            return "scorecard passed" if passed else "SCORECARD FAILED: print(fit.scorecard())"
    return "not judged yet: print(fit.scorecard())"


def _pool(fit: Fit, allow_missing: bool, progress: bool) -> Ratios:
    """Events of the reference, scored by members that never saw them."""
    problem = fit.campaign.events.problem
    (reference,) = {b for a, b in fit.pairs if "@" not in a}
    found = learned.ratios(fit, None, allow_missing=allow_missing, progress=progress)
    rows = np.flatnonzero(problem.labels == problem.classes.index(reference))
    return found.take(rows, problem.weights[rows])


def _record(result: Inference) -> None:
    rows = result.intervals.rows()
    rows["measurement"] = [_measurement(result)]
    rows["impact"] = result.impacts.rows() if result.impacts else []
    rows["refit"] = result.refits.rows() if result.refits else []
    rows["component"] = _component_rows(result.components) if result.components else []
    with result.run.writer("inference") as writer:
        for kind, each in rows.items():
            for row in each:
                writer.append(kind, **row)
    result.run.finish("done" if result.intervals.estimate.valid else "failed")


def _measurement(result: Inference) -> dict[str, Any]:
    """The one row that says what it comes to."""
    from scipy import stats

    made = result.intervals
    return {
        "parameter": made.estimate.parameters[0],
        "value": made.estimate.value,
        "error": made.estimate.error,
        "level": made.level,
        "threshold": float(stats.chi2.ppf(made.level, 1)),
        "spread": result.spread,
        "members": result.members,
    }


def _component_rows(parts: Components) -> list[dict[str, Any]]:
    """A row a source of variance, then what a mean over this very design has of its finite size."""
    design = {"replicas": parts.replicas, "initialisations": parts.initialisations}
    names = ("bootstrap", "initialisation", "interaction")
    rows = [
        {"name": name, "variance": getattr(parts, name), "error": getattr(parts, f"{name}_error")}
        for name in names
    ]
    finite = {"name": "finite ensemble", "variance": parts.finite(crossed=True), "error": np.nan}
    return [design | row for row in [*rows, finite]]


__all__ = ["ONE_SIGMA", "REPLICAS", "Inference", "infer"]
