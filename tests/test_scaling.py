"""Scaling: laws that find their own parameters, studies that survive, predictions, flags."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sml_kernel import records, scaling, tracking
from sml_kernel.scaling import flags, laws, summaries
from sml_kernel.workers import gang

RANKS = np.repeat([1, 2, 3, 4, 6, 8], 3)


# ── laws ──


@pytest.mark.parametrize(
    ("law", "truth"),
    [
        ("usl", {"rate": 1000.0, "contention": 0.05, "coherency": 0.004}),
        ("usl", {"rate": 3.0, "contention": 0.0, "coherency": 0.0}),
        ("amdahl", {"rate": 1000.0, "serial_share": 0.2}),
    ],
)
def test_bands_cover_the_truth_as_often_as_they_say(law: str, truth: dict[str, float]) -> None:
    random, where, experiments = np.random.default_rng(7), [1, 2, 5, 8], 300
    exact, at = (getattr(laws, law)(n, **truth) for n in (RANKS, where))
    covered, pulls, misfits = [], [], []
    for _ in range(experiments):
        fit = laws.fit(law, RANKS, exact * np.exp(random.normal(0, 0.03, len(RANKS))))
        band = fit.at(where, confidence=0.68)
        covered.append((band.lower < at) & (at < band.upper))
        pulls.append([(fit.values[k] - v) / fit.errors[k] for k, v in truth.items()])
        misfits.append(fit.misfit_p < 0.1)
    error = np.sqrt(0.68 * 0.32 / experiments)
    assert np.mean(covered, axis=0) == pytest.approx(0.68, abs=3 * error)
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.2
    assert np.std(pulls, axis=0) == pytest.approx(1.0, abs=0.2)  # t of 15 degrees: 1.07
    assert np.mean(misfits) == pytest.approx(0.1, abs=0.06)


def test_a_law_that_does_not_hold_is_told_by_the_repeats() -> None:
    falling = laws.usl(RANKS, 1000, 0.05, 0.03) * np.tile([0.99, 1.0, 1.01], 6)
    assert laws.fit("amdahl", RANKS, falling).misfit_p < 1e-6
    right = laws.fit("usl", RANKS, falling)
    assert right.misfit_p > 0.5
    assert right.peak() == pytest.approx(np.sqrt(0.95 / 0.03), rel=0.03)
    assert laws.fit("amdahl", RANKS, falling).peak() == np.inf


def test_no_extrapolation_without_saying_so_and_no_fit_of_too_few_points() -> None:
    fit = laws.fit("usl", RANKS, laws.usl(RANKS, 10, 0.1, 0.01) * np.tile([0.9, 1, 1.1], 6))
    with pytest.raises(laws.LawError, match="16 ranks lie outside the 1 to 8"):
        fit.at([4, 16])
    table = fit.at([4, 16], extrapolate=True)
    assert table.extrapolated.tolist() == [False, True]
    with pytest.raises(laws.LawError, match="at least 5 different numbers of ranks, and there are"):
        laws.fit("usl", RANKS[:12], np.ones(12))
    with pytest.raises(laws.LawError, match="unknown law 'gustafson'; known: amdahl, usl"):
        laws.fit("gustafson", RANKS, np.ones(18))


def test_efficiency_carries_the_error_of_its_reference() -> None:
    value, error = laws.efficiency([2, 1, 4], [18, 10, 20], [0.9, 0.5, np.nan])
    assert value.tolist() == pytest.approx([0.9, 1.0, 0.5])
    assert error[:2].tolist() == pytest.approx([0.9 * np.hypot(0.05, 0.05), 0.0])
    assert np.isnan(error[2])


# ── studies ──


def steps_of(rank: int, ranks: int, mode: str) -> list[dict]:
    """Exact: 4 graphs of 8 edges in all; the last rank has twice the share of the others."""
    edges = 8 if rank == ranks - 1 and ranks > 1 else 4
    computing, most = edges / 100, (8 if ranks > 1 else 4) / 100
    phases = {"forward_s": computing, "wait_s": most - computing, "reduce_s": 0.01 * (ranks > 1)}
    row = {"kind": "step", "rank": rank, "graphs": 1, "edges": edges, **phases}
    return [{**row, "step": step, "step_s": sum(phases.values())} for step in (0, 1)]


def on_a_gang(ranks: int, mode: str) -> list[dict]:
    by_rank = gang.run(partial(steps_of, mode=mode), ranks, backend=None)
    return [row for rows in by_rank for row in rows]


def fails_at_two(ranks: int, mode: str) -> list[dict]:
    if ranks == 2:
        gang.run(divide, 2, backend=None)
    return on_a_gang(ranks, mode)


def divide(rank: int) -> float:
    return 1 / rank


def test_losses_add_up_to_what_efficiency_lacks(tmp_path: Path) -> None:
    study = scaling.study(on_a_gang, ranks=[1, 2], repeats=2, folder=tmp_path / "s", progress=False)
    table = study.table().set_index("ranks")
    # 4 edges in 0.04 s against 12 edges in 0.09 s
    assert table.throughput.tolist() == pytest.approx([100.0, 12 / 0.09])
    assert table.efficiency[2] == pytest.approx(12 / 0.09 / 200)
    assert table.speed_up[2] == pytest.approx(12 / 0.09 / 100)
    losses = study.losses().set_index("ranks").loc[2]
    assert losses.lost == pytest.approx(1 - table.efficiency[2])
    assert losses.forward == pytest.approx(0.0)
    assert losses.wait == pytest.approx(0.02 / 0.09)
    assert losses["reduce"] == pytest.approx(0.01 / 0.09)
    waiting = study.waiting().set_index(["ranks", "rank"])
    assert waiting.waiting[2, 0] == pytest.approx(0.04 / 0.09)
    assert waiting.relative_work[2, 1] == pytest.approx(4 / 3)


def test_losses_add_up_also_where_repeats_scatter(tmp_path: Path) -> None:
    slower = iter([1, 2, 1.3, 1.1, 2, 1])

    def run(ranks: int, mode: str) -> list[dict]:
        factor = next(slower)
        rows = [row for rank in range(ranks) for row in steps_of(rank, ranks, mode)]
        return [{**row, "step_s": factor * row["step_s"]} for row in rows]

    study = scaling.study(run, ranks=[1, 2], repeats=3, folder=tmp_path / "s", progress=False)
    assert study.losses().lost.tolist() == pytest.approx((1 - study.table().efficiency).tolist())
    assert study.losses().other.abs().iloc[1] > 0.01


def test_a_failing_point_is_recorded_with_its_reason_and_the_study_goes_on(tmp_path) -> None:
    folder = tmp_path / "s"
    study = scaling.study(fails_at_two, ranks=[1, 2, 3], repeats=2, folder=folder, progress=False)
    points = study.points().set_index(["ranks", "repeat"])
    assert (points.status == "failed").tolist() == [False, True, False] * 2
    assert "ZeroDivisionError" in points.reason[2, 0]
    assert "6 points planned = 4 done, 2 failed, 0 pending" in str(study)
    assert "first failure: 2 ranks, repeat 0: GangError: rank 0" in str(study)
    assert study.run.status() == "failed"
    assert set(study.steps().ranks) == {1, 3}
    before = len(study.run.rows("point"))
    scaling.study(on_a_gang, ranks=[1, 2, 3], repeats=2, folder=folder, progress=False)
    assert len(study.run.rows("point")) == before
    scaling.study(
        on_a_gang, ranks=[1, 2, 3], repeats=2, folder=folder, retry_failed=True, progress=False
    )
    assert set(study.points().status) == {"done"}
    assert len(study.run.rows("point")) == before + 2
    assert study.run.status() == "done"


def test_ranks_that_say_nothing_fail_their_point(tmp_path: Path) -> None:
    def one_silent(ranks: int, mode: str) -> list[dict]:
        return [row for row in on_a_gang(ranks, mode) if row["rank"] == 0]

    study = scaling.study(one_silent, ranks=[2], repeats=1, folder=tmp_path / "s", progress=False)
    (point,) = study.points().itertuples()
    assert point.status == "failed"
    assert "every one of the 2 ranks" in point.reason


KILLED = """
    import os, signal, sys
    from functools import partial
    from sml_kernel import scaling
    from test_scaling import on_a_gang

    calls = []

    def run(ranks, mode):
        calls.append(ranks)
        if len(calls) == {killed_in}:
            os.kill(os.getpid(), signal.SIGKILL)
        return on_a_gang(ranks, mode)

    scaling.study(run, ranks=[1, 2], repeats=2, folder=sys.argv[1], progress=False)
    print(len(calls))
"""


def run_until(killed_in: int, folder: Path) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "tests")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED.format(killed_in=killed_in)), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_a_study_killed_between_points_goes_on_and_repeats_none(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert run_until(3, folder).returncode == -signal.SIGKILL
    study = scaling.open_study(folder)
    assert study.points().status.tolist() == ["done", "done", "pending", "pending"]
    assert study.run.status() == "lost"
    with study.run.writer("study") as writer:  # a point that was cut short while it was written
        row = steps_of(0, 1, "strong")[0]
        writer.append(row.pop("kind"), ranks=1, repeat=1, attempt="cut short", **row)
    assert len(study.steps()) == 6
    again = run_until(99, folder)
    assert again.stdout == "2\n", again.stderr
    assert study.points().status.tolist() == ["done"] * 4
    assert len(study.run.rows("point")) == 4
    assert len(study.steps()) == 12
    assert study.run.status() == "done"
    (session,) = (folder / "sessions").glob("*/run.json")
    assert json.loads(session.read_text())["status"] == "done"


def test_another_study_is_not_mixed_into_a_folder(tmp_path: Path) -> None:
    small = {"ranks": [1], "repeats": 1, "progress": False}
    study = scaling.study(on_a_gang, folder=tmp_path / "s", **small)
    with pytest.raises(records.RecordError, match="mode = 'strong', and you ask for 'weak'"):
        scaling.study(on_a_gang, mode="weak", folder=tmp_path / "s", **small)
    records.start(tmp_path / "other", kind="train", parameters={})
    with pytest.raises(scaling.StudyError, match="kind 'train'"):
        scaling.open_study(tmp_path / "other")
    assert study.run.status() == "done"


def test_one_process_at_a_time_measures_a_study(tmp_path: Path) -> None:
    def run(ranks: int, mode: str) -> list[dict]:
        other = run_until(99, tmp_path / "s")
        assert "another process holds" in other.stderr
        return on_a_gang(ranks, mode)

    study = scaling.study(run, ranks=[1, 2], repeats=2, folder=tmp_path / "s", progress=False)
    assert set(study.points().status) == {"done"}, study.points().reason.tolist()


# ── flags ──


def test_flags_are_raised_by_what_they_name_and_by_nothing_else() -> None:
    def ranks(n: int, **values: object) -> pd.DataFrame:
        row = {"repeat": 0, "host": "a", "device": "cpu", "cores": [0, 1], "threads": 1}
        row |= {"launch_blocking": "", **values}
        return pd.DataFrame([{"ranks": n, "rank": rank, **row} for rank in range(n)])

    def found(rows: pd.DataFrame, times: list[float], *sessions: dict, cpu_s=1.0) -> list[str]:
        repeats = pd.DataFrame({"ranks": 2, "step_s": times})
        phases = {"data_s": 0.0, "forward_s": 0.5, "backward_s": 0.5, "cpu_s": cpu_s}
        steps = rows[["ranks", "repeat", "rank"]].assign(**phases)
        return flags.find(rows, steps, repeats, sessions or [{"commit": "x"}]).flag.tolist()

    assert found(ranks(2), [1.0, 1.01]) == []
    assert found(ranks(3), [1.0, 1.01]) == ["oversubscribed"]
    assert found(ranks(2, threads=2), [1.0, 1.01]) == ["oversubscribed"]
    assert found(ranks(2, launch_blocking="1"), [1.0, 1.01]) == ["launch_blocking"]
    assert found(ranks(2), [1.0, 1.01], cpu_s=0.8) == ["contended"]
    assert found(ranks(2, device="A100"), [1.0, 1.01], cpu_s=0.8) == []
    assert found(ranks(2), [1.0, 1.2]) == ["noisy"]
    assert found(ranks(2), [1.0]) == ["one_repeat"]
    assert found(ranks(2), [1.0, 1.01], {"commit": "x"}, {"commit": "y"}) == ["mixed"]
    assert found(ranks(2).drop(columns="cores"), [1.0, 1.01]) == ["unknown"]


# ── predictions ──


def with_all_phases(ranks: int, mode: str) -> list[dict]:
    """On one rank: 2 ms a graph, 1 µs an edge, 10 ms to update."""
    rows = []
    for step, edges in enumerate([1000, 2000, 3000, 10_000]):
        spent = {"data_s": 0.0, "forward_s": 0.004 + 1e-6 * edges, "backward_s": 0.0}
        spent |= {"wait_s": 0.0, "reduce_s": 0.0, "update_s": 0.01}
        row = {"kind": "step", "rank": 0, "step": step, "graphs": 2, "edges": edges, **spent}
        rows.append({**row, "step_s": sum(spent.values())})
    return rows


def test_stragglers_are_predicted_exactly_where_the_answer_is_known(tmp_path: Path) -> None:
    base = scaling.study(
        with_all_phases, ranks=[1], repeats=2, folder=tmp_path / "s", progress=False
    )

    def loads(ranks: int, mode: str) -> np.ndarray:
        whole = np.array([[[1, 40_000], [1, 10_000]], [[1, 10_000], [1, 20_000]]])
        return whole if ranks == 2 else whole.sum(axis=1, keepdims=True)

    prediction = scaling.predict(base, [1, 2], loads, reduce_s=lambda n: 0.003)
    assert (prediction.graph_s, prediction.edge_s) == pytest.approx((0.002, 1e-6))
    one, two = prediction.table.itertuples()
    # slowest: 42 ms and 22 ms; the others wait 30 ms and 10 ms
    assert two.step_s == pytest.approx((0.042 + 0.022) / 2 + 0.01 + 0.003)
    assert two.wait_s == pytest.approx((0.030 + 0.010) / 4)
    assert two.throughput == pytest.approx(40_000 / 0.045)
    assert one.step_s == pytest.approx((0.054 + 0.034) / 2 + 0.01)
    assert two.efficiency == pytest.approx(0.054 / 0.045 / 2)
    assert one.efficiency == pytest.approx(1.0)
    assert (one.assumed, two.assumed) == ("", "")
    guess = scaling.predict(base, [2], loads).table.iloc[0]
    assert guess.step_s == pytest.approx(0.042)
    assert "takes no time" in guess.assumed


# ── the training step on real ranks ──


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    events = tracking.simulate(
        6, 1, 3, process="gun", cache=tmp_path_factory.mktemp("events"), progress=False
    )
    return partial(
        tracking.step_benchmark,
        tracking.build_graphs(events),
        hidden=16,
        iterations=2,
        steps=6,
        warm_up=1,
        folder=tmp_path_factory.mktemp("graphs"),
    )


def test_the_parts_of_a_step_add_up_and_the_shares_are_those_foretold(benchmark, tmp_path) -> None:
    run = benchmark()
    base = scaling.study(run, ranks=[1], repeats=2, folder=tmp_path / "base", progress=False)
    prediction = scaling.predict(base, [1, 2], run.loads)
    study = scaling.study(
        run, ranks=[1, 2], repeats=1, folder=tmp_path / "s", prediction=prediction, progress=False
    )
    assert set(study.points().status) == {"done"}, study.points().reason.tolist()
    phases = study.phases()
    assert (phases.other_s.abs() < 0.001 * phases.step_s).all()
    assert (phases[["data_s", "forward_s", "backward_s", "update_s"]] > 0).all(axis=None)
    steps = study.steps().query("ranks == 2").sort_values(["step", "rank"])
    dealt = run.loads(2, "strong")
    assert steps.edges.to_numpy().reshape(6, 2).tolist() == dealt[..., 1].tolist()
    assert steps.groupby("rank").size().tolist() == [6, 6]
    assert len(study.steps(warm_up=True)) == 1 + 2
    # the same batches and weights: the same loss, however many ranks share it
    losses = study.steps().groupby(["step", "ranks"]).loss.first().unstack()
    assert losses[2].tolist() == pytest.approx(losses[1].tolist(), rel=1e-4)
    assert scaling.compare(study).ranks.tolist() == [1, 2]
    assert study.ranks().cores.map(len).min() >= 1
    roof = study.roofline()
    assert roof.ranks.tolist() == [1, 2]
    assert (roof[["flops_per_s", "roof_flops_per_s"]] > 0).all(axis=None)


def test_a_roof_is_what_the_slower_of_copy_and_product_allows() -> None:
    steps = pd.DataFrame({"ranks": [1, 1, 2], "forward_s": [1.0, 1.0, 1.0], "backward_s": 1.0})
    steps = steps.assign(flops=[8e9, 8e9, 8e9], bytes=[4e9, 4e9, 1e9])
    ranks = pd.DataFrame({"ranks": [1, 2], "matmul_flops_per_s": 20e9, "copy_bytes_per_s": 5e9})
    roof = summaries.roofline(steps, ranks)
    assert roof.intensity.tolist() == [2, 8]
    assert roof.flops_per_s.tolist() == [4e9, 4e9]
    assert roof.roof_flops_per_s.tolist() == [10e9, 20e9]  # of the copy, of the product
    assert roof.share.tolist() == [0.4, 0.2]
    assert summaries.roofline(steps.drop(columns="bytes"), ranks).empty


def test_weak_steps_grow_with_the_ranks_and_counted_shares_are_uneven(benchmark) -> None:
    even, counted = benchmark(), benchmark(assign="count")
    strong, weak = even.loads(2, "strong"), even.loads(2, "weak")
    assert set(strong[..., 0].sum(axis=1)) == {4}
    assert set(weak[..., 0].sum(axis=1)) == {8}
    spread = [np.ptp(run.loads(2, "strong")[..., 1], axis=1).mean() for run in (even, counted)]
    assert spread[0] < spread[1]
    assert set(counted.loads(2, "strong")[..., 0].ravel()) == {2}
    with pytest.raises(ValueError, match="cannot give each of 5 ranks one"):
        even(5, "strong")
    assert even.store.folder == counted.store.folder


# ── figures ──


def test_the_figure_shows_the_measured_points_and_the_law_through_them(tmp_path: Path) -> None:
    from sml_kernel import plots

    def exact(ranks: int, mode: str) -> list[dict]:
        """10 % of the work is done by one rank alone."""
        seconds = 10 / laws.amdahl([ranks], 10.0, 0.1)[0]
        row = {"kind": "step", "step": 0, "edges": 10 / ranks, "step_s": seconds}
        return [{**row, "rank": rank, "forward_s": seconds / 2} for rank in range(ranks)]

    study = scaling.study(exact, ranks=[1, 2, 4], repeats=2, folder=tmp_path / "s", progress=False)
    speed_up, efficiency, _ = plots.scaling(study, fit="amdahl")
    measured = efficiency.Scatter.Measured.dframe()
    assert measured.efficiency.tolist() == pytest.approx([1, 1 / 1.1, 1 / 1.3])
    law = speed_up.Curve.Law.dframe()
    assert law.speed_up.iloc[-1] == pytest.approx(4 / 1.3)
    with pytest.raises(ValueError, match="usl needs at least 5"):
        plots.scaling(study, fit="usl")
