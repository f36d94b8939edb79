"""An ensemble as one model to serve: what it says is what the fit says."""

from __future__ import annotations

import numpy as np
import pytest

from sml_kernel import sbi, serving
from sml_kernel.sbi import served

SETTINGS = {"hidden": (8,), "epochs": 2, "batch": 128, "stack": 4}


@pytest.fixture(scope="module")
def fit(tmp_path_factory) -> sbi.Fit:
    problem = sbi.draw(sbi.GaussianShift(1.0, 2), 600, seed=3)
    folder = tmp_path_factory.mktemp("runs") / "fit"
    return sbi.Ensemble(problem, 24, **SETTINGS).fit(folder=folder, progress=False)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(40, 2)).astype(np.float32)


@pytest.mark.parametrize("how", ["arithmetic", "geometric"])
def test_an_ensemble_served_says_what_the_fit_says(
    fit: sbi.Fit, x: np.ndarray, how: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "_EVENTS", 16)  # several blocks of events, and of members
    monkeypatch.setattr(served, "_MEMBERS", 5)
    made = serving.as_servable("ratio", fit.servable("ratio", how=how))
    mean, spread = made.direct([x])
    expected = fit.ratio(x, how=how, progress=False)
    np.testing.assert_allclose(mean, expected.ratio, rtol=1e-6)
    np.testing.assert_allclose(spread, expected.sigma, rtol=1e-5)
    assert [(each.name, each.shape) for each in made.outputs] == [("mean", ()), ("spread", ())]
    again = served.learned_ratio(dict(made.arguments), dict(made.parameters), tmp_path)
    np.testing.assert_array_equal(again(serving.servable.tensor(x)).mean.numpy(), mean)
    assert made.run == str(fit.folder)


def test_several_ratios_are_columns_in_the_order_of_the_pairs(tmp_path) -> None:
    random, names = np.random.default_rng(2), ["a", "b", "ref"]
    features = np.concatenate([random.normal(at, 1, (300, 1)) for at in range(3)])
    problem = sbi.Problem.of(features, np.repeat(names, 300))
    fit = sbi.Ensemble(problem, 8, reference="ref", **SETTINGS).fit(
        folder=tmp_path / "fit", progress=False
    )
    made = serving.as_servable("ratio", fit)
    x = np.linspace(-1, 3, 7, dtype=np.float32)[:, None]
    mean, spread = made.direct([x])
    assert mean.shape == spread.shape == (7, 2)
    for column, (numerator, _) in enumerate(fit.pairs):
        expected = fit.ratio(x, numerator, progress=False)
        np.testing.assert_allclose(mean[:, column], expected.ratio, rtol=1e-6)


def test_members_that_are_missing_are_missed(fit: sbi.Fit, tmp_path) -> None:
    import shutil

    shutil.copytree(fit.folder, tmp_path / "part")
    shutil.rmtree(next((tmp_path / "part" / "shards").glob("[0-9]*")))
    part = sbi.open_fit(tmp_path / "part")
    with pytest.raises(sbi.MissingError, match="4 of 24 members"):
        serving.as_servable("ratio", part)
    made = serving.as_servable("ratio", part.servable("ratio", allow_missing=True))
    assert len(made.parameters["members 0"]) == 20
    with pytest.raises(ValueError, match="not the median"):
        fit.servable("ratio", how="median")
