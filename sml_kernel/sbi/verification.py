"""Whether intervals of a fit hold the true value: toys of its own simulated events, by label."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel.sbi import learned
from sml_kernel.sbi.likelihood.coverage import Coverage, measure_coverage
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.strengths import signal_strength

if TYPE_CHECKING:
    from sml_kernel.sbi.fit import Fit
    from sml_kernel.sbi.likelihood.ratios import Rates
    from sml_kernel.sbi.likelihood.strengths import Strengths


def cover(
    fit: Fit,
    at: float,
    *,
    events: int | None,
    strengths: Strengths | None,
    mode: str,
    rates: Rates | None,
    spread: float | None,
    toys: int,
    seed: int,
    allow_missing: bool,
    progress: bool,
) -> Coverage:
    """See `fit.Fit.coverage`."""
    problem = fit.campaign.events.problem
    pool = learned.ratios(fit, None, allow_missing=allow_missing, progress=progress)
    rates = rates or learned.rates(problem)
    if mode == "shape":  # yields are not known to be those of the data
        if events is None:
            raise ValueError("in mode shape every toy has so many events as you say: events=…")
        rates = replace(rates, errors=None)
    strengths = strengths or signal_strength(pool.processes, pool.processes[:1])
    some = np.arange(events or 1)  # only their number counts
    model = Likelihood(pool.take(some % pool.events), rates, strengths, mode)
    labels = [problem.labels == problem.classes.index(name) for name in pool.processes]
    truth = np.where(labels, problem.weights, 0.0)
    asked = {"at": at, "toys": toys, "mode": mode, "events": events, "spread": spread}
    run = fit.campaign.run.part("coverages", kind="coverage", parameters=asked, seed=seed)
    found = measure_coverage(
        model, lambda _: pool, truth, at, toys=toys, spread=spread, seed=seed, progress=progress
    )
    with run.writer("coverage") as writer:
        for kind, rows in found.rows().items():
            for row in rows:
                writer.append(kind, **row)
    run.finish("done")
    return found
