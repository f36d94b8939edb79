"""The scorecard of a fit: figures of its members, and how its ensembles close."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel import records
from sml_kernel.sbi.campaign.judging import inflation, log_exact
from sml_kernel.sbi.scorecard import metrics
from sml_kernel.sbi.scorecard.bands import Bands, Check
from sml_kernel.sbi.scorecard.card import Scorecard, scorecard
from sml_kernel.sbi.scorecard.two_sample import classifier_two_sample
from sml_kernel.sbi.scorecard.verdicts import ensemble_checks

if TYPE_CHECKING:
    from sml_kernel.sbi.ensemble import Fit

#: Events that the two-sample test is given at most: its error is then 0.16 %.
_TWO_SAMPLE_EVENTS = 100_000


def assess(
    fit: Fit,
    *,
    how: str,
    two_sample: bool,
    bands: Bands | None,
    allow_missing: bool,
    progress: bool,
) -> Scorecard:
    """See `ensemble.Fit.scorecard`."""
    table = fit.members(progress=progress)
    ensembles = [
        check
        for pair in fit.pairs
        for check in _ensemble(fit, pair, how, two_sample, bands, allow_missing, progress)
    ]
    there = table[table.status != "pending"]
    card = scorecard(there, ensembles, planned=len(table), bands=bands)
    below = Path(fit.folder) / "scorecards"
    number = len(list(below.glob("*"))) + 1
    asked = {"how": how, "two_sample": two_sample, "bands": vars(card.bands)}
    run = records.start(below / f"{number:04d}", kind="scorecard", parameters=asked)
    with run.writer("scorecard") as writer:
        for row in card.rows():
            writer.append("check", **row)
    run.finish("done", passed=card.passed)
    return card


def _ensemble(
    fit: Fit,
    pair: tuple[str, str],
    how: str,
    two_sample: bool,
    bands: Bands | None,
    allow_missing: bool,
    progress: bool,
) -> list[Check]:
    events = fit.campaign.events
    combined = fit.ratio(numerator=pair[0], how=how, allow_missing=allow_missing, progress=progress)
    numerator, reference = (events.problem.classes.index(name) for name in pair)
    rows = np.flatnonzero(np.isin(events.problem.labels, (numerator, reference)))
    held = metrics.Held(
        events.seen(events.problem.features[rows]),
        events.problem.labels[rows] == numerator,
        events.problem.weights[rows],
        log_exact(events, pair, rows),
    )
    log_ratio = np.log(combined.ratio[rows])
    judged = metrics.judge(
        log_ratio[None], held, inflation=inflation(fit.campaign.folds, bootstrap=False)
    )
    found = None
    if two_sample:
        some = slice(None, None, -(-len(rows) // _TWO_SAMPLE_EVENTS))
        exact = None if held.exact is None else held.exact[some]
        part = metrics.Held(held.x[some], held.numerator[some], held.weights[some], exact)
        found = classifier_two_sample(part, log_ratio[some])
    return ensemble_checks(
        judged,
        events.problem.feature_names,
        subject=pair[0],
        bands=bands,
        ensembles=len(fit.pairs),
        two_sample=found,
    )
