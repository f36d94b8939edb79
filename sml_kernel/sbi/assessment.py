"""The scorecard of a fit: figures of its members, and how its ensembles close.

Its record has all that figures are drawn from, binned: rows ``check`` (`Scorecard.rows`),
``losses`` (a ratio and fold), ``reliability`` and ``closure`` (`scorecard.curves`), ``spread``
(a bin of a feature), ``spread_map`` (a ratio) and, where it is known, ``exact`` (a bin of the exact
ratio). The record of 10,000 members is no larger than that of 40.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.sbi.campaign.judging import inflation, log_exact
from sml_kernel.sbi.scorecard import metrics
from sml_kernel.sbi.scorecard.bands import Bands, Check
from sml_kernel.sbi.scorecard.card import Scorecard, scorecard
from sml_kernel.sbi.scorecard.curves import closure_rows, reliability_rows
from sml_kernel.sbi.scorecard.two_sample import classifier_two_sample
from sml_kernel.sbi.scorecard.verdicts import ensemble_checks

if TYPE_CHECKING:
    import pandas as pd

    from sml_kernel.sbi.campaign.scoring import Combined
    from sml_kernel.sbi.fit import Fit

#: Events that the two-sample test is given at most: its error is then 0.16 %.
_TWO_SAMPLE_EVENTS = 100_000
#: Bins that are recorded to draw from: of losses, of a feature, of each side of a map.
_LOSS_BINS, _FEATURE_BINS, _MAP_BINS = 50, 20, 12

#: A row for the record: its kind, and its values.
Row = tuple[str, dict[str, Any]]


def assess(
    fit: Fit,
    *,
    how: str,
    two_sample: bool,
    bands: Bands | None,
    allow_missing: bool,
    progress: bool,
) -> Scorecard:
    """See `fit.Fit.scorecard`."""
    table = fit.members(progress=progress)
    ensembles: list[Check] = []
    drawn = [("losses", row) for row in loss_rows(table)]
    for pair in fit.pairs:
        combined = fit.ratio(
            numerator=pair[0], how=how, allow_missing=allow_missing, progress=progress
        )
        checks, rows = _ensemble(fit, pair, combined, how, two_sample, bands)
        ensembles += checks
        drawn += rows
    there = table[table.status != "pending"]
    card = scorecard(there, ensembles, planned=len(table), bands=bands)
    asked = {"how": how, "two_sample": two_sample, "bands": vars(card.bands)}
    run = fit.campaign.run.part("scorecards", kind="scorecard", parameters=asked)
    with run.writer("scorecard") as writer:
        for kind, row in [*(("check", row) for row in card.rows()), *drawn]:
            writer.append(kind, **row)
    run.finish("done", passed=card.passed)
    return card


def _ensemble(
    fit: Fit,
    pair: tuple[str, str],
    combined: Combined,
    how: str,
    two_sample: bool,
    bands: Bands | None,
) -> tuple[list[Check], list[Row]]:
    """Judge one ensemble on the events of its two classes; checks, and rows to draw from."""
    events = fit.campaign.events
    names = events.problem.feature_names
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
    checks = ensemble_checks(
        judged,
        names,
        subject=pair[0],
        bands=bands,
        ensembles=len(fit.pairs),
        two_sample=found,
    )
    x = events.problem.features[rows]  # in the units of the features, to be looked at
    plain = metrics.Held(x, held.numerator, held.weights)
    # log r̂ is what a geometric ensemble averages: its σ is relative already
    spread = combined.sigma[rows] / (1 if how == "geometric" else combined.ratio[rows])
    drawn = [("reliability", row) for row in reliability_rows(log_ratio, plain)]
    drawn += [("closure", row) for row in closure_rows(log_ratio, plain, names, _FEATURE_BINS)]
    if np.isfinite(spread).all():  # a median has none, nor has a single member
        drawn += _spread(x, spread, names)
    if held.exact is not None:
        drawn += [("exact", row) for row in _exact_rows(log_ratio, held.exact, spread)]
    own = {"subject": pair[0], "against": pair[1], "members": int(combined.members[rows].min())}
    return checks, [(kind, own | row) for kind, row in drawn]


def loss_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """How the held-out losses of all members are distributed.

    Parameters
    ----------
    table
        A row a member, of `fit.Fit.members`.

    Returns
    -------
    list of dict
        For each ratio and fold (a fold has held-out events of its own, and so losses of its own):
        ``edges`` of bins that all folds of a ratio share, ``counts`` in them, members ``below`` and
        ``above``; ``infinite``, done without a finite loss, ``failed`` and ``pending``. All
        together are the ``planned`` ones. ``optimum``: the loss of the exact ratio on the same
        events, nan where it is not known.
    """
    rows = []
    for names, members in table.groupby(["numerator", "reference"], sort=False):
        numerator, reference = (str(name) for name in names)
        edges = _loss_edges(_losses(members))
        for fold, some in members.groupby("fold"):
            losses, states = _losses(some), some["status"].value_counts()
            done, failed, pending = (int(states.get(s, 0)) for s in ("done", "failed", "pending"))
            row = {"subject": numerator, "against": reference, "fold": fold, "edges": edges}
            row |= {"planned": len(some), "failed": failed, "pending": pending}
            row |= {"counts": np.histogram(losses, edges)[0], "infinite": done - len(losses)}
            row |= {"below": int((losses < edges[0]).sum())}
            row |= {"above": int((losses > edges[-1]).sum())}
            rows.append(row | {"optimum": _optimum(some)})
    return rows


def _losses(members: pd.DataFrame) -> np.ndarray:
    found = members["bce"].to_numpy(float) if "bce" in members else np.empty(0)
    return found[np.isfinite(found)]


def _loss_edges(losses: np.ndarray) -> np.ndarray:
    """As far as members reach, but for those beyond four times the range of the middle half."""
    if not len(losses):
        return np.linspace(0, 1, _LOSS_BINS + 1)
    low, high = np.quantile(losses, (0.25, 0.75))
    beyond = max(4 * (high - low), 1e-6)
    low, high = max(low - beyond, losses.min()), min(high + beyond, losses.max())
    return np.linspace(low, max(high, low + 1e-6), _LOSS_BINS + 1)


def _optimum(members: pd.DataFrame) -> float:
    """What the exact ratio loses on the held-out events of these members; the same for each."""
    if "excess" not in members:
        return float("nan")
    known = (members["bce"] - members["excess"]).dropna()
    return float(known.iloc[0]) if len(known) else float("nan")


def _spread(x: np.ndarray, spread: np.ndarray, features: Sequence[str]) -> Iterator[Row]:
    """Relative spread of members, as the root of its mean square in bins of equal events: along
    each feature, and over the two along which it changes most."""
    changes = []
    for values, name in zip(x.T, features, strict=True):
        edges = _quantiles(values, _FEATURE_BINS)
        (found,), (counts,) = _in_bins([values], spread, [edges])
        for (low, high), size, events in zip(itertools.pairwise(edges), found, counts, strict=True):
            if events:
                row = {"feature": name, "low": low, "high": high}
                yield "spread", row | {"spread": size, "events": events}
        changes.append(np.nanmax(found) / max(np.nanmin(found), 1e-12))
    if x.shape[1] > 1:
        first, second = sorted(np.argsort(changes, kind="stable")[-2:])
        across, up = (_quantiles(x[:, each], _MAP_BINS) for each in (first, second))
        found, counts = _in_bins([x[:, first], x[:, second]], spread, [across, up])
        names = {"x": features[first], "y": features[second]}
        values = {"x_edges": across, "y_edges": up, "spread": found, "events": counts}
        yield "spread_map", names | values


def _exact_rows(
    log_ratio: np.ndarray, exact: np.ndarray, spread: np.ndarray
) -> Iterator[dict[str, Any]]:
    """In bins of the exact log ratio: its mean, the mean of learned − exact and the standard
    deviation of that over events, and the spread over members."""
    edges = _quantiles(exact, _FEATURE_BINS)
    place = np.clip(np.searchsorted(edges, exact, side="right") - 1, 0, len(edges) - 2)
    for number in np.unique(place):
        mine = place == number
        away = log_ratio[mine] - exact[mine]
        row = {"exact": exact[mine].mean(), "difference": away.mean(), "scatter": away.std()}
        yield row | {"spread": np.sqrt(np.mean(spread[mine] ** 2)), "events": int(mine.sum())}


def _quantiles(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of bins with about equal events; less bins where values are often alike, and at least
    one."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0], np.nextafter(edges[0], np.inf)])


def _in_bins(
    columns: Sequence[np.ndarray], spread: np.ndarray, edges: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square, nan where there is none, and events in bins, [1, X] or [X, Y]."""
    sample, bins = np.column_stack(columns), list(edges)
    counts = np.histogramdd(sample, bins)[0]
    squares = np.histogramdd(sample, bins, weights=spread**2)[0]
    with np.errstate(invalid="ignore"):
        found = np.sqrt(squares / counts)
    return np.atleast_2d(found), np.atleast_2d(counts).astype(int)
