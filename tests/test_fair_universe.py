"""The challenge's files are read, broken ones refused, and its score is that of the formula."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sml_kernel import sbi
from sml_kernel.sbi.higgs.challenge_files import read_fair_universe
from sml_kernel.sbi.higgs.features import DERIVED, PRIMARY, derived
from sml_kernel.sbi.higgs.score import challenge_score

ROWS = 40
RELEASE = "FAIR_Universe_HiggsML_data.parquet"


def table() -> pd.DataFrame:
    """Events as the release has them: 28 features, weights and both labels, mixed."""
    rng = np.random.default_rng(1)
    columns = {}
    for name in PRIMARY:
        low, high = (26, 90) if name.endswith(("pt", "met")) else (-2.4, 2.4)
        columns[name] = rng.uniform(low, high, ROWS)
    columns["PRI_n_jets"] = rng.integers(0, 4, ROWS).astype(float)
    for count, jet in ((1, "leading"), (2, "subleading")):
        for what in ("pt", "eta", "phi"):
            columns[f"PRI_jet_{jet}_{what}"][columns["PRI_n_jets"] < count] = -25
    columns |= derived(columns)
    processes = np.array(["htautau", "ztautau", "ttbar", "diboson"])[np.arange(ROWS) % 4]
    columns["weights"] = rng.uniform(1, 1000, ROWS)
    columns["labels"] = (processes == "htautau").astype(float)
    columns["detailed_labels"] = processes
    return pd.DataFrame(columns)


def write_release(folder: Path, events: pd.DataFrame, promised: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    events.to_parquet(folder / RELEASE)
    about = {"total_rows": len(events) if promised is None else promised, "luminosity": 10}
    (folder / RELEASE.replace(".parquet", "_metadata.json")).write_text(json.dumps(about))
    return folder


def write_competition(folder: Path, events: pd.DataFrame, suffix: str = "parquet") -> Path:
    train = folder / "input_data" / "train"
    for name in ("weights", "labels", "detailed_labels"):
        (train / name).mkdir(parents=True)
        text = "".join(f"{value}\n" for value in events[name])
        (train / name / f"data.{name}").write_text(text)
    features = events.drop(columns=["weights", "labels", "detailed_labels"])
    (train / "data").mkdir()
    if suffix == "csv":
        features.to_csv(train / "data" / "data.csv", index=False)
    else:
        features.to_parquet(train / "data" / "data.parquet")
    return folder


# ---------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "write",
    [
        write_release,
        write_competition,
        lambda folder, events: write_competition(folder, events, "csv"),
        lambda folder, events: write_competition(folder, events.drop(columns=list(DERIVED))),
    ],
    ids=["release", "competition", "competition csv", "primary only"],
)
def test_both_layouts_are_read_back_as_written(tmp_path: Path, write: Callable) -> None:
    events = table()
    problem = read_fair_universe(write(tmp_path / "data", events[events.columns[::-1]]))
    names = [*PRIMARY, *DERIVED]
    assert problem.feature_names == tuple(names)
    assert problem.classes == ("htautau", "ztautau", "ttbar", "diboson")
    assert problem.features == pytest.approx(events[names].to_numpy("float32"), rel=1e-6)
    assert (np.array(problem.classes)[problem.labels] == events.detailed_labels).all()
    assert problem.weights == pytest.approx(events.weights.to_numpy())


def test_the_first_events_stand_for_all(tmp_path: Path) -> None:
    """As many as are wanted, their weights times the ratio of the numbers."""
    events = table()
    for write in (write_release, write_competition):
        folder = write(tmp_path / write.__name__, events)
        problem = read_fair_universe(folder, events=12)
        assert problem.weights == pytest.approx(events.weights.to_numpy()[:12] * ROWS / 12)
        assert len(read_fair_universe(folder, events=1000).labels) == ROWS
    with pytest.raises(sbi.InputError, match="events is 0: give 1 or more"):
        read_fair_universe(folder, events=0)


def test_the_selection_of_the_challenge_is_a_cut_on_the_problem(tmp_path: Path) -> None:
    problem = read_fair_universe(write_release(tmp_path, table()))
    passed = problem.select(lambda x: x["PRI_had_pt"] > 40)
    assert 4 <= len(passed.labels) < ROWS


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.drop(columns="PRI_met"), "column 'PRI_met': the column is missing"),
        (lambda t: t.drop(columns="DER_pt_h"), "column 'DER_pt_h': the column is missing"),
        (lambda t: t.drop(columns="weights"), "column 'weights': the column is missing"),
        (
            lambda t: t.assign(PRI_met=np.where(t.index == 3, np.inf, 1.0)),
            "row 3, column 'PRI_met': inf is not a finite number",
        ),
        (
            lambda t: t.assign(PRI_met=t.PRI_met.where(t.index != 3)),
            "row 3, column 'PRI_met': the value is missing",
        ),
        (lambda t: t.assign(PRI_met="x"), "column 'PRI_met': large_string where double is needed"),
        (
            lambda t: t.assign(labels=1.0),
            "row 1, column 'detailed_labels': 'ztautau' with labels 1: 1 goes with htautau",
        ),
        (
            lambda t: t.assign(detailed_labels=t.detailed_labels.replace("ttbar", "wjets")),
            "row 2, column 'detailed_labels': 'wjets' is none of htautau",
        ),
        (lambda t: t.assign(weights=-1.0), "class 'htautau' has weights that sum to -10"),
        (lambda t: t[:0], "has no events"),
    ],
)
def test_bad_columns_give_their_one_error(tmp_path: Path, change: Callable, complaint: str) -> None:
    folder = write_release(tmp_path, change(table()))
    with pytest.raises(sbi.InputError, match=re.escape(complaint)) as raised:
        read_fair_universe(folder)
    assert str(raised.value).startswith(str(folder / RELEASE))


def test_damaged_and_incomplete_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(sbi.InputError, match="has none of FAIR_Universe"):
        read_fair_universe(tmp_path)
    short = write_release(tmp_path / "short", table(), promised=220)
    with pytest.raises(sbi.InputError, match=f"promises 220 events, and there are {ROWS}"):
        read_fair_universe(short)
    (short / RELEASE).write_bytes((short / RELEASE).read_bytes()[:900])
    with pytest.raises(sbi.InputError, match="is no sound parquet file"):
        read_fair_universe(short)
    parts = write_competition(tmp_path / "parts", table())
    train = parts / "input_data" / "train"
    weights = train / "weights" / "data.weights"
    lines = weights.read_text().splitlines()
    weights.write_text("\n".join(lines[:-1]))
    with pytest.raises(sbi.InputError, match=rf"data\.weights has {ROWS - 1} lines for {ROWS}"):
        read_fair_universe(parts)
    weights.write_text("\n".join([*lines[:-1], "many"]))
    with pytest.raises(sbi.InputError, match=rf"data\.weights, line {ROWS}: 'many' is not a num"):
        read_fair_universe(parts)
    weights.unlink()
    with pytest.raises(sbi.InputError, match=r"data\.weights cannot be read .*No such file"):
        read_fair_universe(parts)


# ---------------------------------------------------------------------------------------- score


def covering(covered: int, trials: int, width: float = 0.5) -> np.ndarray:
    """Intervals [T, 2] of one width about 1, of which so many hold it."""
    ends = np.tile([1 - width / 2, 1 + width / 2], (trials, 1))
    ends[covered:] += 10
    return ends


@pytest.mark.parametrize(
    ("covered", "penalty"),
    [
        # σ = √(.6827 · .3173 / 100) = .046543: no penalty from .589614 to .775786
        (68, 1.0),
        (59, 1.0),
        (77, 1.0),
        (58, 1.0018211),  # 1 + (.009614/.046543)⁴
        (78, 1.0007423),  # 1 + (.004214/.046543)³
        (50, 14.7425),  # 1 + (.089614/.046543)⁴
        (100, 112.8),  # 1 + (.224214/.046543)³
        (0, 25757),  # 1 + (.589614/.046543)⁴
    ],
)
def test_score_by_hand(covered: int, penalty: float) -> None:
    found = challenge_score(covering(covered, 100), np.ones(100))
    assert found.width == pytest.approx(0.5)
    assert found.coverage == covered / 100
    assert found.penalty == pytest.approx(penalty, rel=2e-3)
    assert found.score == pytest.approx(-math.log(0.51 * found.penalty))
    assert challenge_score(covering(covered, 100), 1.0) == found


def test_narrow_intervals_that_cover_win_and_epsilon_bounds_them() -> None:
    narrow, wide = (challenge_score(covering(683, 1000, w), 1.0).score for w in (0.2, 0.4))
    assert narrow - wide == pytest.approx(math.log(0.41 / 0.21))
    assert challenge_score(covering(683, 1000, 0.0), 1.0).score == pytest.approx(math.log(100))
    published = challenge_score(covering(683, 1000, 0.0), 1.0, epsilon=1e-3)
    assert published.score == pytest.approx(math.log(1000))
    assert challenge_score(np.array([[0.0, 1.0]]), np.array([1.0])).coverage == 1  # ends count


@pytest.mark.parametrize(
    ("intervals", "truth", "complaint"),
    [
        ([[1.0, 0.0]], [1.0], "interval 0 is 1.0 … 0.0 for the truth 1.0"),
        ([[0.0, 1.0], [np.nan, 1.0]], 1.0, "interval 1 is nan … 1.0"),
        ([[0.0, 1.0]], [np.inf], "for the truth inf"),
        ([[0.0, 1.0]], [1.0, 2.0], "intervals (1, 2) and truth (2,): give [T, 2] and [T]"),
        (np.zeros((0, 2)), [], "T at least 1"),
        ([0.0, 1.0], 1.0, "intervals (2,) and truth ()"),
    ],
)
def test_what_cannot_be_scored_is_refused(intervals: list, truth: list, complaint: str) -> None:
    with pytest.raises(sbi.InputError, match=re.escape(complaint)):
        challenge_score(intervals, truth)
