"""Events come in checked, or one error says where they are wrong; exact densities are exact."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from sml_kernel import sbi
from sml_kernel.sbi.problems.exact import Exact

FAMILIES = [
    sbi.GaussianShift(delta=1.0, dimensions=3),
    sbi.MixtureFraction(delta=1.0),
    sbi.SignedMixture(),
    sbi.QuadraticInterference(),
]
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means [k] of values [N, k] whose total weight is known to be one, and their errors."""
    terms = values * weights[:, None] * len(weights)
    return terms.mean(axis=0), terms.std(axis=0) / math.sqrt(len(terms))


# ------------------------------------------------------------------------------ exact densities


@by_name
def test_reweighting_a_class_by_the_exact_ratio_gives_the_other(family: Exact) -> None:
    """E_q[r] = 1, and moments of the features under r q are those under p (also of signed p)."""
    rng = np.random.default_rng(5)
    numerator, denominator = family.classes[0], family.classes[-1]
    samples = {}
    for name in (numerator, denominator):
        x, weights = family.sample(name, 100_000, rng)
        moments = np.column_stack([np.ones(len(x)), x, x**2, np.cos(2 * x)])
        samples[name] = x, weights / len(x), moments
    x, weights, moments = samples[denominator]
    ratio = np.exp(sbi.log_ratio(family, x, numerator, denominator))
    moved, error = weighted_mean(moments, weights * ratio)
    _, other_weights, other_moments = samples[numerator]
    wanted, other_error = weighted_mean(other_moments, other_weights)
    assert abs(moved[0] - 1) < 4 * error[0]
    pulls = (moved - wanted) / np.hypot(error, other_error).clip(1e-12)
    assert np.abs(pulls).max() < 4.5


@pytest.mark.parametrize(
    ("family", "points"),
    [
        (sbi.GaussianShift(delta=2.0), ["shifted", -1.5]),
        (sbi.MixtureFraction(delta=2.0), ["signal", "background", 0.3]),
        (sbi.SignedMixture(negative_fraction=0.3), ["signal", 0.5]),
        (sbi.QuadraticInterference(dimensions=1), ["S", "SBI", "B", 0.1, 9.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_densities_integrate_to_one(family: Exact, points: list) -> None:
    for at in points:
        total, _ = integrate.quad(
            lambda x, at=at: math.exp(family.log_density(np.array([[x]]), at)[0]), -12, 12
        )
        assert total == pytest.approx(1, abs=1e-7), at


@pytest.mark.parametrize(
    ("family", "at"),
    [
        (sbi.MixtureFraction(), 0.3),
        (sbi.SignedMixture(), 0.6),
        (sbi.QuadraticInterference(dimensions=1, phase=0.0), 9.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_events_between_the_classes_follow_their_density(family: Exact, at: float) -> None:
    """Weighted counts in bins against the integral of the density, signed events included."""
    x, weights = family.sample(at, 100_000, np.random.default_rng(8))
    edges = np.linspace(-2, 2.5, 10)
    for low, high in itertools.pairwise(edges):
        inside = weights * ((x[:, 0] >= low) & (x[:, 0] < high))
        wanted, _ = integrate.quad(
            lambda v: math.exp(family.log_density(np.array([[v]]), at)[0]), low, high
        )
        assert abs(inside.mean() - wanted) < 4 * inside.std() / math.sqrt(len(x))


def test_gaussian_shift_has_its_known_optimum() -> None:
    """AUC .76025 and balanced BCE .58173 at δ = 1 (Φ(δ/√2), and one integral)."""
    family = sbi.GaussianShift(delta=1.0)
    problem = sbi.draw(family, events=100_000, seed=3)
    logit = sbi.log_ratio(family, problem.features, "shifted", "reference")
    assert logit == pytest.approx(problem.features[:, 0] - 0.5, abs=1e-6)
    shifted = problem.labels == problem.classes.index("shifted")
    auc = stats.mannwhitneyu(logit[shifted], logit[~shifted]).statistic / 1e10
    bce = np.logaddexp(0, np.where(shifted, -logit, logit)).mean()
    assert auc == pytest.approx(0.76025, abs=4e-3)
    assert bce == pytest.approx(0.58173, abs=4e-3)


@pytest.mark.parametrize(("delta", "sigma"), [(1.0, 0.0338), (2.0, 0.01996)])
def test_fraction_has_its_known_information(delta: float, sigma: float) -> None:
    """σ(θ̂) = 1/√(N I), I = ∫ (p_S − p_B)²/p, for N = 1000 at θ = .3."""
    family = sbi.MixtureFraction(delta)

    def information(x: float) -> float:
        event = np.array([[x]])
        signal, background, mixed = (
            math.exp(family.log_density(event, at)[0]) for at in ("signal", "background", 0.3)
        )
        return (signal - background) ** 2 / mixed

    total, _ = integrate.quad(information, -10, 12)
    assert 1 / math.sqrt(1000 * total) == pytest.approx(sigma, rel=2e-3)


def test_interference_is_the_sum_of_its_samples_at_any_strength() -> None:
    """ν(μ) p(x|μ) = (μ − √μ) S + √μ SBI + (1 − √μ) B, and so the yields."""
    family = sbi.QuadraticInterference()
    x, _ = family.sample("SBI", 500, np.random.default_rng(1))
    for mu in (0.0, 0.2, 1.0, 5.0):
        root = math.sqrt(mu)
        shares = {"S": mu - root, "SBI": root, "B": 1 - root}
        yields = {name: share * family.expected(name) for name, share in shares.items()}
        assert family.expected(mu) == pytest.approx(sum(yields.values()))
        summed = sum(v * np.exp(family.log_density(x, name)) for name, v in yields.items())
        assert family.expected(mu) * np.exp(family.log_density(x, mu)) == pytest.approx(summed)
    assert family.interference < 0  # destructive in sum, …
    together = family.expected("SBI") * np.exp(family.log_density(x, "SBI"))
    apart = sum(family.expected(n) * np.exp(family.log_density(x, n)) for n in ("S", "B"))
    assert 0.2 < (together > apart).mean() < 0.8  # … of either sign over the events


def test_interference_likelihood_has_no_slope_at_the_truth() -> None:
    """E[∂ ln L/∂μ] = 0 over experiments with a Poisson number of events."""
    family, truth, step = sbi.QuadraticInterference(), 2.0, 1e-4
    rng = np.random.default_rng(4)
    numbers = rng.poisson(family.expected(truth), 100)
    x, _ = family.sample(truth, numbers.sum(), rng)
    slopes = []
    for events in np.split(x, numbers.cumsum()[:-1]):
        high, low = (family.log_likelihood(events, truth + d) for d in (step, -step))
        slopes.append((high - low) / (2 * step))
    assert abs(np.mean(slopes)) < 4 * np.std(slopes, ddof=1) / 10
    shape = family.log_density(x, truth).sum()
    nu = family.expected(truth)
    assert family.log_likelihood(x, truth) == pytest.approx(shape + len(x) * math.log(nu) - nu)


def test_signed_density_that_would_be_negative_is_refused() -> None:
    with pytest.raises(sbi.InputError, match=r"take a share below 0\.3"):
        sbi.SignedMixture(negative_fraction=0.4)
    bound = 1 / (math.exp(0.5**2 / (2 * (1 - 0.6**2))) / 0.6 + 1)
    family = sbi.SignedMixture(negative_fraction=0.999 * bound)
    x = np.linspace(-3, 3, 2001)[:, None]
    ratio = np.exp(family.log_density(x, "signal") - sbi.GaussianShift().log_density(x, 0.0))
    assert 0 < ratio.min() < 0.01


def test_seeds_repeat_and_differ() -> None:
    first, again, other = (sbi.draw(sbi.SignedMixture(), 100, seed) for seed in (1, 1, 2))
    assert (first.features == again.features).all()
    assert (first.weights == again.weights).all()
    assert (first.features != other.features).all()


def test_unknown_points_are_refused() -> None:
    with pytest.raises(sbi.InputError, match="there is no class 'sbi'; there are S, SBI, B"):
        sbi.QuadraticInterference().log_density(np.zeros((1, 8)), "sbi")
    with pytest.raises(sbi.InputError, match=r"the parameter 1\.1 is outside 0\.0 … 1\.0"):
        sbi.MixtureFraction().log_density(np.zeros((1, 1)), 1.1)
    with pytest.raises(sbi.InputError, match=re.escape("x has shape (8,): give [N, 8]")):
        sbi.QuadraticInterference().log_density(np.zeros(8), "S")


# ------------------------------------------------------------------------- yields and selection


def test_yields_report_negative_weights_and_effective_events() -> None:
    """A share f of equal weights negative leaves (1 − 2f)² of the events."""
    problem = sbi.draw(sbi.SignedMixture(negative_fraction=0.2), events=50_000, seed=1)
    signal = problem.yields()["signal"]
    assert signal.negative_fraction == pytest.approx(0.2, abs=0.007)
    assert signal.effective_events == pytest.approx(0.36 * 50_000, rel=0.04)
    assert abs(signal.expected - 1) < 4 * signal.error
    assert signal.error == pytest.approx(1 / 0.6 / math.sqrt(50_000), rel=1e-3)
    assert "negative" in repr(problem)


def test_yields_after_a_cut_scatter_as_their_error_says() -> None:
    """A Poisson number of signed events, cut, 400 times over: the scatter of ν is σ_ν."""
    rng, found = np.random.default_rng(2), []
    family = sbi.SignedMixture()
    for _ in range(400):
        x, weights = family.sample("signal", max(rng.poisson(500), 1), rng)
        passed = sbi.Problem.of(x, ["s"] * len(x), weights).select(lambda x: x["x0"] > 0.2)
        found.append(passed.yields()["s"])
    scatter = np.std([y.expected for y in found], ddof=1)
    error = math.sqrt(np.mean([y.error**2 for y in found]))
    assert scatter == pytest.approx(error, rel=0.14)  # 4 times its own error, 1/√(2·400)
    accepted, _ = integrate.quad(
        lambda v: math.exp(family.log_density(np.array([[v]]), "signal")[0]), 0.2, 10
    )
    assert abs(np.mean([y.expected for y in found]) - 500 * accepted) < 4 * error / 20


@pytest.mark.parametrize("shared", [True, False])
def test_ratio_of_varied_yields_scatters_as_its_error_says(shared: bool) -> None:
    """The same events moved, or others, of a Poisson number: κ after a cut, 300 times over."""
    rng, found = np.random.default_rng(3), []
    for _ in range(300):
        nominal, varied = (rng.standard_normal(n) for n in rng.poisson(2000, 2))
        varied = (nominal if shared else varied) + 0.5
        ids = np.arange(len(varied)) + len(nominal) * (not shared)
        problem = sbi.Problem.of(
            np.concatenate([nominal, varied]),
            np.repeat([0, 1], [len(nominal), len(varied)]),
            classes=["s", "s@scale=+1"],
            event_ids=np.concatenate([np.arange(len(nominal)), ids]),
        ).select(lambda x: x["x0"] > 1)
        found.append(sbi.yield_ratio(problem, "s@scale=+1", "s"))
    kappa, error = np.array(found).T
    assert np.std(kappa, ddof=1) == pytest.approx(error.mean(), rel=0.17)
    wanted = stats.norm.sf(0.5) / stats.norm.sf(1)
    assert abs(kappa.mean() - wanted) < 4 * error.mean() / math.sqrt(300) + wanted / 317


def test_selection_keeps_what_belongs_to_an_event() -> None:
    problem = sbi.draw(sbi.QuadraticInterference(), events=200, seed=1)
    passed = problem.select(lambda x: x["x0"] > 0)
    kept = problem.features[:, 0] > 0
    assert (passed.event_ids == problem.event_ids[kept]).all()
    assert (passed.labels == problem.labels[kept]).all()
    assert passed.classes == problem.classes
    assert passed.exact is None
    with pytest.raises(sbi.InputError, match=r"events after the cut.*class 'S' has no events"):
        problem.select(lambda x: np.zeros(600, bool))
    with pytest.raises(
        sbi.InputError, match=r"the cut gave float32 \[600\]; give booleans \[600\]"
    ):
        problem.select(lambda x: x["x0"])


def test_tensors_are_balanced_copies() -> None:
    problem = sbi.draw(sbi.QuadraticInterference(), events=100, seed=1)
    features, labels, weights = problem.tensors()
    assert list(features.shape) == [300, 8]
    assert [str(t.dtype) for t in (features, labels, weights)] == [
        "torch.float32",
        "torch.int64",
        "torch.float32",
    ]
    assert weights.double().numpy() @ np.eye(3)[labels] == pytest.approx([100] * 3, rel=1e-6)
    features.zero_()
    assert problem.features.any()
    with pytest.raises(ValueError, match="read-only"):
        problem.features[0] = 0


# --------------------------------------------------------------------------------------- arrays

X, LABELS = np.arange(8.0).reshape(4, 2), ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"features": X * [1, np.nan]}, "arrays, row 0, column 'x1': nan is not a finite number"),
        ({"features": X * [1, 1e38]}, "arrays, row 2, column 'x1': 5e+38 does not fit float32"),
        ({"features": X.astype(str)}, "arrays, columns x0, x1: <U32 is not a type of real"),
        ({"weights": [1, 1, math.inf, 1]}, "arrays, row 2, column 'weights': inf is not a finite"),
        ({"weights": [1, -2, 1, 1]}, "class 'a' has weights that sum to -1 over 2 events"),
        ({"weights": [1, 1, 1, -1]}, "class 'b' has weights that sum to 0 over 2 events"),
        ({"weights": [1, 1]}, "weights has shape (2,) for 4 events: give [N]"),
        ({"classes": ["a", "b", "c"]}, "class 'c' has no events"),
        ({"classes": ["a"]}, "arrays, row 2, column 'labels': b is not among the classes a"),
        ({"labels": [0, 0, 1, 1]}, "labels are numbers: give their names"),
        ({"labels": [1.0, 1.0, 2.0, 2.0]}, "row 0, column 'labels': 1.0 is no name"),
        ({"labels": ["a", "a", "b@j", "b@j"]}, "row 2, column 'labels': 'b@j' is no class: write"),
        (
            {"event_ids": [7, 7, 7, 8]},
            "row 1, column 'event_ids': event 7 of class 'a' comes twice",
        ),
        ({"event_ids": [1.0, 2, 3, 4]}, "event_ids are float64: give whole numbers"),
        ({"feature_names": ["m", "m"]}, "2 features need as many different names"),
    ],
)
def test_bad_arrays_give_their_one_error(given: dict, complaint: str) -> None:
    with pytest.raises(sbi.InputError, match=re.escape(complaint)):
        sbi.Problem.of(**{"features": X, "labels": LABELS, **given})


def test_labels_name_points_of_the_nuisances() -> None:
    parse = sbi.ParameterPoint.parse
    assert parse("ttbar") == sbi.ParameterPoint("ttbar")
    assert parse("h@tes=-1,jes=+.5") == sbi.ParameterPoint("h", (("jes", 0.5), ("tes", -1.0)))
    problem = sbi.Problem.of(X, ["h", "h", "h@jes=+1", "h@jes=+1"])
    assert problem.points == (parse("h"), sbi.ParameterPoint("h", (("jes", 1.0),)))
    for wrong in ("", "@jes=1", "h@", "h@jes", "h@jes=up", "h@jes=nan", "h@jes=1,jes=2"):
        with pytest.raises(ValueError, match="is no class"):
            parse(wrong)


# ---------------------------------------------------------------------------------------- files


@st.composite
def event_tables(draw: st.DrawFn) -> list[pd.DataFrame]:
    """Tables of one class each, columns in an order of their own; some weights negative."""
    names = draw(
        st.lists(st.sampled_from(["m", "pT (GeV)", "η", "n, jets"]), min_size=1, unique=True)
    )
    tables, first = [], 0
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 6))
        reals = st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=rows, max_size=rows
        )
        weights = st.lists(st.floats(-1, 1), min_size=rows - 1, max_size=rows - 1)
        table = pd.DataFrame({name: draw(reals) for name in names})
        table["weight"] = [*draw(weights), float(rows)]
        table["event"] = np.arange(first, first + rows)
        first += rows
        tables.append(table[draw(st.permutations(list(table)))])
    return tables


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


@given(tables=event_tables(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_files_are_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, tables: list[pd.DataFrame], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("events")
    suffixes = [data.draw(st.sampled_from([".csv", ".parquet"])) for _ in tables]
    files = {
        f"class {i}": write(table, folder / f"{i}{suffix}")
        for i, (table, suffix) in enumerate(zip(tables, suffixes, strict=True))
    }
    problem = sbi.read_problem(files, event="event")
    names = [name for name in tables[0] if name not in ("weight", "event")]
    whole = pd.concat(tables)
    assert problem.feature_names == tuple(names)
    assert problem.classes == tuple(files)
    assert (problem.features == whole[names].to_numpy("float32")).all()
    assert (problem.weights == whole["weight"].to_numpy()).all()
    assert (problem.event_ids == whole["event"].to_numpy()).all()
    assert (problem.labels == np.repeat(np.arange(len(tables)), [len(t) for t in tables])).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_may_say_the_class(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame({"m": [2**60 + 1, 2, 3], "process": ["b", "a", "b"]})
    path = write(table, tmp_path / f"events{suffix}")
    problem = sbi.read_problem(path, label="process", weight=None, features=["m"])
    assert problem.classes == ("a", "b")
    assert list(problem.labels) == [1, 0, 1]
    assert list(problem.weights) == [1, 1, 1]
    complaint = f"{path}, column 'process': class 'c' has no events"
    with pytest.raises(sbi.InputError, match=re.escape(complaint).replace("process", ".*")):
        sbi.read_problem(path, label="process", weight=None, classes=["a", "b", "c"])


def _set(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        values = [*table[column]]
        values[row] = value
        return table.assign(**{column: values})

    return changed


BOTH = [".csv", ".parquet"]
BAD_FILES = [
    (BOTH, _set(3, "m", np.inf), "{place} 3, column 'm': inf is not a finite number; repair it"),
    (BOTH, _set(2, "m", np.nan), "{place} 2, column 'm': the value is missing; repair"),
    ([".csv"], _set(1, "weight", "x"), "{place} 1, column 'weight': 'x' is not a number; repair"),
    ([".csv"], _set(4, "event", "1.5"), "{place} 4, column 'event': '1.5' is not a whole number"),
    ([".parquet"], lambda t: t.assign(m="x"), "column 'm': large_string where double is needed"),
    (BOTH, _set(0, "weight", -9.0), "column 'weight': class 's' has weights that sum to -5 over 5"),
    (BOTH, _set(4, "event", 0), "{place} 4, column 'event': event 0 of class 's' comes twice"),
    (BOTH, lambda t: t.drop(columns="weight"), "column 'weight': the column is missing; there are"),
    (BOTH, lambda t: t.drop(columns="m"), "column 'm': missing, but a feature of"),
    (BOTH, lambda t: t.assign(z=1.0), "column 'z': no feature of"),
    (BOTH, lambda t: t[:0], "has no events; leave it out or make it again"),
]


@pytest.mark.parametrize(
    ("suffix", "spoil", "complaint"),
    [(suffix, spoil, complaint) for each, spoil, complaint in BAD_FILES for suffix in each],
)
def test_bad_files_give_their_one_error(
    tmp_path: Path, suffix: str, spoil: Callable, complaint: str
) -> None:
    """The second of two files is spoilt: it is the one that is named, with its own row."""
    good = pd.DataFrame({"m": np.arange(5.0), "pt": 1.0, "weight": 1.0, "event": np.arange(5)})
    first = write(good, tmp_path / "b.parquet")
    table = spoil(good.copy())
    second = write(table, tmp_path / f"s{suffix}")
    row = re.search(r"\{place\} (\d)", complaint)
    if row:
        place = f"line {int(row[1]) + 2}" if suffix == ".csv" else f"row {row[1]}"
        complaint = place + complaint[row.end() :]
    with pytest.raises(sbi.InputError, match=re.escape(complaint)) as raised:
        sbi.read_problem({"b": first, "s": second}, event="event")
    assert str(raised.value).startswith(str(second))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "m,weight\n1,1\n2\n", "line 3, column 'weight': 1 fields instead of 2"),
        ("a.csv", "m,weight\n1,1\n\n2,1\n", "line 3, column 'm': 0 fields instead of 2"),
        ("a.csv", "m,m,weight\n1,1,1\n", "column 'm': the column stands twice"),
        ("a.csv", "", "is empty"),
        ("a.csv", None, "no such file"),
        ("a.parquet", None, "no such file"),
        ("a.parquet", "m,weight\n1,1\n", "is no sound parquet file"),
        ("a.root", "", "is no sound ROOT file"),
        ("a.hdf5", "", "is none of .csv, .parquet, .root"),
        ("a.csv", "weight\n1\n", "has no column that is a feature"),
    ],
)
def test_damaged_files_give_their_one_error(
    tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(sbi.InputError, match=re.escape(complaint)) as raised:
        sbi.read_problem({"a": path})
    assert str(raised.value).startswith(str(path))
