"""Figures of ensembles and measurements: drawn from records alone, and true to them."""

from __future__ import annotations

import re
from pathlib import Path

import holoviews
import numpy as np
import pandas as pd
import pytest
from scipy import special

from sml_kernel import plots, records, sbi
from sml_kernel.sbi.assessment import loss_rows
from sml_kernel.sbi.likelihood.coverage import Coverage, Covered, EnsembleCoverage

FAMILY = sbi.QuadraticInterference()
OF_SCORECARD = [plots.reliability, plots.closure, plots.losses, plots.spread, plots.against_exact]
OF_INFERENCE = [plots.likelihood_scan, plots.pulls, plots.variance_components]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> sbi.Fit:
    """A few hasty networks, judged, and used for an interval."""
    folder = tmp_path_factory.mktemp("figures") / "campaign"
    made = sbi.Ensemble(
        sbi.draw(FAMILY, 2000, seed=3), 24, hidden=(8,), epochs=2, initialisations=2
    )
    fit = made.fit(folder=folder, progress=False)
    fit.scorecard(two_sample=False, progress=False)
    data, weights = FAMILY.sample("SBI", 300, np.random.default_rng(1))
    strengths = sbi.fraction(fit.campaign.events.problem.classes, ("SBI",))
    fit.infer(data, weights=weights, strengths=strengths, mode="shape", progress=False)
    return fit


def coverages() -> Coverage:
    ensembles = tuple(
        EnsembleCoverage(k, 0.0, 200, 130 + k, 0, 0.0, 0.0, 1.0, 0.03) for k in range(5)
    )
    return Coverage(0.3, Covered("plain", 0.68, ensembles), Covered("spread", 0.68, ensembles[:1]))


def scorecard_rows(fit: sbi.Fit, kind: str) -> pd.DataFrame:
    (folder,) = (fit.folder / "scorecards").glob("*")
    return records.read(folder, kind)


@pytest.mark.parametrize("draw", OF_SCORECARD + OF_INFERENCE, ids=lambda draw: draw.__name__)
def test_every_figure_is_drawn_without_events_and_networks(draw, fit, tmp_path: Path) -> None:
    import hvplot
    from bokeh.resources import INLINE

    below = "scorecards" if draw in OF_SCORECARD else "inferences"
    (folder,) = (fit.folder / below).glob("*")
    rows = records.read(folder)  # all that is known from here on
    hvplot.save(draw(rows), str(tmp_path / "figure.html"), resources=INLINE)
    page = (tmp_path / "figure.html").read_text()
    assert '"type":"object","name":"Figure"' in page
    assert not re.search(r"<script[^>]+src=.https?://", page)


def test_a_fit_its_folder_and_rows_give_the_same_figure(fit) -> None:
    sources = [fit, fit.folder, str(fit.folder), scorecard_rows(fit, "losses")]
    titles = {
        tuple(each.opts.get().kwargs["title"] for each in plots.losses(source))
        for source in sources
    }
    assert len(titles) == 1
    one = plots.reliability(fit, "SBI")
    assert len(one) == 2  # a panel, and its ratios
    with pytest.raises(ValueError, match="no ratio of 'Z' is recorded; there are S, SBI"):
        plots.reliability(fit, "Z")
    with pytest.raises(ValueError, match="no row of kind 'coverage'"):
        plots.coverage(fit)


def test_of_many_features_the_worst_are_drawn_and_it_says_of_how_many(fit) -> None:
    rows = scorecard_rows(fit, "closure")
    many = pd.concat([rows, rows.assign(subject="Z")])  # three ratios, six features each
    figure = plots.closure(many)
    assert len(figure) == 2 * 12
    assert figure.opts.get().kwargs["title"].startswith("12 of 18 worst features of all ratios")
    assert plots.closure(rows).opts.get().kwargs["title"] == ""


def test_every_member_is_in_the_distribution_or_told(fit) -> None:
    table = fit.members(progress=False).reset_index(drop=True)
    some = np.flatnonzero(table.numerator == "SBI")
    table.loc[some[0], ["status", "bce"]] = "failed", np.nan
    table.loc[some[1], ["status", "bce"]] = "pending", np.nan
    table.loc[some[2], "bce"] = np.nan  # done, with logits that are not finite
    table.loc[some[3], "bce"] = 1e6  # beyond the axis of all others, or the axis says nothing
    rows = pd.DataFrame(loss_rows(table))
    counted = rows[["below", "above", "failed", "pending", "infinite"]].sum(axis=1)
    assert (counted + rows.counts.map(np.sum)).tolist() == rows.planned.tolist()
    (title,) = (
        each.opts.get().kwargs["title"] for each in plots.losses(rows.assign(kind="losses"), "SBI")
    )
    assert "10 of 12 networks, 1 failed, 1 pending, 1 not finite, " in title
    assert title.endswith("beyond the axis")
    assert max(edges[-1] for edges in rows.edges) < 2


def test_spread_and_exact_rows_are_those_of_the_events(fit) -> None:
    problem, combined = fit.campaign.events.problem, fit.ratio(numerator="S", progress=False)
    mine = np.isin(problem.labels, [problem.classes.index(each) for each in ("S", "B")])
    relative = (combined.sigma / combined.ratio)[mine]
    rows = scorecard_rows(fit, "spread").query("subject == 'S' and feature == 'x3'")
    assert rows.events.sum() == mine.sum()
    whole = np.sqrt(np.average(rows.spread.astype(float) ** 2, weights=rows.events))
    assert whole == pytest.approx(np.sqrt(np.mean(relative**2)), rel=1e-12)
    inside = (problem.features[mine, 3] >= rows.low.iloc[4]) & (
        problem.features[mine, 3] < rows.high.iloc[4]
    )
    assert inside.sum() == rows.events.iloc[4]
    assert rows.spread.iloc[4] == pytest.approx(np.sqrt(np.mean(relative[inside] ** 2)), rel=1e-12)
    exact = scorecard_rows(fit, "exact").query("subject == 'S'")
    away = np.log(combined.ratio[mine]) - sbi.log_ratio(
        problem.exact, problem.features[mine], "S", "B"
    )
    assert np.average(exact.difference, weights=exact.events) == pytest.approx(away.mean())


def test_a_measurement_at_a_limit_has_no_error_and_is_drawn(fit) -> None:
    (folder,) = (fit.folder / "inferences").glob("*")
    rows = records.read(folder)
    rows.loc[rows.kind == "measurement", "error"] = None
    title = plots.likelihood_scan(rows).values()[0].opts.get().kwargs["title"]
    assert "without an error" in title
    assert plots.variance_components(rows).opts.get().kwargs["ylabel"] == "variance of f"


def test_a_scan_is_drawn_through_its_points_and_its_minimum() -> None:
    from sml_kernel.plots.measurements import _smooth

    mu = np.array([0.0, 1.0, 3.0, 4.0])
    scan = pd.DataFrame({"mu": mu, "q": (mu - 1.7) ** 2 / 0.25})
    fine, q = _smooth(scan, 1.7)
    np.testing.assert_allclose(q, (fine - 1.7) ** 2 / 0.25, atol=1e-9)


def test_coverage_has_its_band_and_says_whether_it_covers(tmp_path: Path) -> None:
    run = records.start(tmp_path / "run", kind="inference", parameters={})
    with run.writer() as writer:
        for kind, rows in coverages().rows().items():
            for row in rows:
                writer.append(kind, **row)
    figure = plots.coverage(run)
    labels = [label for _, label in figure.opts.get().kwargs["xticks"]]
    assert labels == ["without spread, at 0.3: covers", "with spread, at 0.3: covers"]
    boxes = next(iter(figure.data.values()))
    assert isinstance(boxes, holoviews.Rectangles)
    assert (boxes.data["y"][0], boxes.data["y1"][0]) == coverages().plain.band


def test_an_inference_records_where_its_likelihood_is_cut(fit) -> None:
    (folder,) = (fit.folder / "inferences").glob("*")
    whole = records.read(folder, "measurement").iloc[0]
    assert special.chdtr(1, whole.threshold) == pytest.approx(whole.level, abs=1e-12)
    parts = records.read(folder, "component").set_index("name").variance.astype(float)
    replicas, starts = 3, 2
    expected = (
        parts["bootstrap"] / replicas
        + parts["initialisation"] / starts
        + parts["interaction"] / (replicas * starts)
    )
    assert parts["finite ensemble"] == pytest.approx(expected)
