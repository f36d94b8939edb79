"""Campaigns: what is planned gets done, once, whatever is killed on the way."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import dask
import numpy as np
import pandas as pd
import pytest

import sml_kernel as sml
from sml_kernel import records, sbi
from sml_kernel.sbi.campaign import plan, shards
from sml_kernel.sbi.campaign.dispatch import PartError
from sml_kernel.sbi.campaign.folds import Folds

SMALL = {"hidden": (8,), "epochs": 3, "batch": 128, "stack": 4}


def small(members: int = 24, **others) -> sbi.Ensemble:
    return sbi.Ensemble(sbi.draw(sbi.GaussianShift(1.0), 1000, seed=3), members, **SMALL | others)


def content(fit: sbi.Fit) -> pd.DataFrame:
    """All that is known of the members; weights by their digest."""
    return fit.members(progress=False).sort_values("key", ignore_index=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> sbi.Fit:
    return small().fit(folder=tmp_path_factory.mktemp("runs") / "whole", progress=False)


# ── plan ──


def test_the_plan_has_every_member_of_the_axes_once() -> None:
    shifts = [f"n{number}={side}" for number in range(20) for side in ("-1", "+1")]
    processes = ["a", "b", "c", "d"]
    classes = [*processes, "ref", *(f"{name}@{shift}" for name in processes for shift in shifts)]
    pairs = plan.pairs_of(classes, "ref")
    made = plan.design(pairs, 9840, bootstrap=True, initialisations=5, folds=2)
    table = plan.table(made, {"campaign": 1})
    axes = ["numerator", "reference", "fold", "replica", "initialisation"]
    assert len(table) == made.members == 4 * (1 + 2 * 20) * 60
    assert not table.duplicated(axes).any()
    assert table.key.is_unique
    assert ("a@n3=+1", "a") in pairs
    assert (table.groupby("stack")[["numerator", "fold"]].nunique() == 1).all(axis=None)
    other = plan.table(made, {"campaign": 2})
    assert not set(table.key) & set(other.key)
    # crossed: all replicas begin from the same initialisations; variations have seeds of their own
    assert (table.groupby(["numerator", "fold", "initialisation"]).seed.nunique() == 1).all()
    assert table.seed.nunique() == len(pairs) * 2 * 5


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"members": 25}, "come in 2: ask for 24 or 26"),
        ({"members": 1}, "come in 2: ask for 2$"),
        ({"reference": "signal"}, "'signal' is none of shifted, reference"),
        ({"bootstrap": False, "initialisations": 2}, "leave it at 1"),
    ],
)
def test_an_ensemble_that_cannot_be_planned_says_what_can(asked, message) -> None:
    with pytest.raises(plan.PlanError, match=message):
        _ = small(**asked).design


def test_folds_go_by_the_name_of_an_event_alone() -> None:
    folds, ids = Folds(4, 0.25, campaign=7), np.arange(40_000) * 11
    fold = folds.of(ids)
    assert np.abs(np.bincount(fold, minlength=4) - 10_000).max() < 4 * np.sqrt(7_500)
    np.testing.assert_array_equal(folds.of(ids[::-1]), fold[::-1])
    training, validation = folds.split(ids, 2)
    np.testing.assert_array_equal(training | validation, fold != 2)
    assert not (training & validation).any()
    assert abs(validation[fold != 2].mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 30_000)
    assert (Folds(4, 0.25, campaign=8).of(ids) != fold).mean() == pytest.approx(0.75, abs=0.02)


# ── nothing is lost ──


def test_a_second_fit_trains_nothing_anew(undisturbed) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.folder.glob("shards/*/*")}
    again = small().fit(folder=undisturbed.folder, progress=False)
    assert str(again.progress()) == "24 of 24 members done"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(records.RecordError, match=r"learning_rate = 0\.001, and you ask for 0\.01"):
        small(learning_rate=0.01).fit(folder=undisturbed.folder)


FIT = """
    import sys
    from tests_of_campaigns import small
    import sml_kernel as sml

    if __name__ == "__main__":
        with sml.launch("laptop", cpus=2) as workers:
            print("begun", flush=True)
            small().fit(workers, sys.argv[1], progress=False)
"""


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(undisturbed, tmp_path) -> None:
    (tmp_path / "tests_of_campaigns.py").write_text(
        textwrap.dedent(f"""
            from sml_kernel import sbi

            def small():
                problem = sbi.draw(sbi.GaussianShift(1.0), 1000, seed=3)
                return sbi.Ensemble(problem, 24, **{SMALL!r})
        """)
    )
    (tmp_path / "fit.py").write_text(textwrap.dedent(FIT))
    draw = random.Random(5)
    for _ in range(3):
        begun = subprocess.Popen(
            [sys.executable, "fit.py", "campaign"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert begun.stdout is not None
        assert begun.stdout.readline() == "begun\n"
        time.sleep(draw.uniform(0.2, 2.5))
        begun.send_signal(signal.SIGKILL)
        begun.wait()
    fit = small().fit(folder=tmp_path / "campaign", progress=False)
    state = fit.progress()
    assert (state.planned, state.done, state.failed, state.pending) == (24, 24, 0, 0)
    assert fit.members(judged=False).key.is_unique
    assert not list(fit.folder.glob("shards/.*"))
    pd.testing.assert_frame_equal(content(fit), content(undisturbed))
    np.testing.assert_array_equal(
        fit.ratio(progress=False).ratio, undisturbed.ratio(progress=False).ratio
    )


def test_a_worker_that_is_killed_costs_nothing(undisturbed, tmp_path) -> None:
    with sml.launch("laptop", cpus=2) as workers:
        workers.wait(2, timeout_s=60)
        pids = workers.client.run(os.getpid)
        killer = threading.Timer(0.3, os.kill, (next(iter(pids.values())), signal.SIGKILL))
        killer.start()
        fit = small().fit(workers, tmp_path / "c", progress=False)
        killer.join()
        assert str(fit.progress()) == "24 of 24 members done"
        pd.testing.assert_frame_equal(content(fit), content(undisturbed))


def test_a_scheduler_that_is_lost_is_told_with_what_was_done(undisturbed, tmp_path) -> None:
    from sml_kernel.sbi.campaign.campaign import CampaignError

    soon = {"distributed.comm.timeouts.connect": "3s"}  # until a client says that it is lost
    with dask.config.set(soon), sml.launch("laptop", cpus=1) as workers:
        workers.wait(1, timeout_s=60)
        scheduler = workers.cluster.scheduler
        close = threading.Timer(1, workers.cluster.loop.add_callback, (scheduler.close,))
        close.start()
        long = small(epochs=3000, patience=3000)
        with pytest.raises(CampaignError, match=r"of 24 members done.*Fit again"):
            long.fit(workers, tmp_path / "c", progress=False)
        close.join()


def test_a_folder_that_is_removed_and_made_anew_has_new_events(tmp_path) -> None:
    for seed in (1, 2):
        problem = sbi.draw(sbi.GaussianShift(1.0), 500, seed=seed)
        fit = sbi.Ensemble(problem, 4, **SMALL).fit(folder=tmp_path / "c", progress=False)
        np.testing.assert_array_equal(fit.campaign.events.problem.features, problem.features)
        shutil.rmtree(tmp_path / "c")


def test_one_process_at_a_time(undisturbed) -> None:
    shard = undisturbed.folder / "shards" / "00001"
    hidden = shard.rename(undisturbed.folder / "away")
    try:
        with records.Hold(undisturbed.folder), pytest.raises(records.HeldError):
            small().fit(folder=undisturbed.folder, progress=False)
    finally:
        hidden.rename(shard)


# ── members that are missing ──


def test_members_that_fail_are_recorded_and_the_others_are_not_harmed(tmp_path) -> None:
    """Of a class with few events a replica may have none to stop by."""
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(size=(1000, 1)), random.normal(1, 1, (20, 1))])
    problem = sbi.Problem.of(x, ["b"] * 1000 + ["a"] * 20, classes=["a", "b"])
    made = sbi.Ensemble(problem, 40, **SMALL | {"stack": 10, "campaign": 3})
    fit = made.fit(folder=tmp_path / "c", progress=False)
    members = fit.members(judged=False)
    failed = members[members.status == "failed"]
    state = fit.progress()
    assert 0 < len(failed) < 40
    assert (state.done, state.failed, state.pending) == (40 - len(failed), len(failed), 0)
    assert failed.failure.str.contains("a ratio to it cannot be learned").all()
    with pytest.raises(sbi.MissingError, match=rf"{len(failed)} failed.*allow_missing"):
        fit.ratio()
    combined = fit.ratio(x, allow_missing=True, progress=False)
    assert set(combined.members) == {40 - len(failed)}


def test_damaged_shards_are_named(tmp_path) -> None:
    fit = small(8).fit(folder=tmp_path / "c", progress=False)
    weights = fit.folder / "shards" / "00000" / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(PartError, match=r"00000/weights\.safetensors: its bytes have changed"):
        fit.ratio(progress=False)
    table = fit.folder / "shards" / "00001" / "members.parquet"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(shards.ShardError, match=r"00001/members.parquet.*remove .*/00001 and fit"):
        fit.progress()


# ── what comes out ──


def test_the_ensemble_is_nearer_to_the_truth_than_its_members_and_out_of_fold(tmp_path) -> None:
    problem = sbi.draw(sbi.GaussianShift(1.0), 4000, seed=4)
    made = sbi.Ensemble(problem, 16, hidden=(16,), epochs=8, learning_rate=5e-3, campaign=2)
    fit = made.fit(folder=tmp_path / "c", progress=False)
    combined = fit.ratio(progress=False)
    assert set(combined.members) == {8}
    exact = sbi.log_ratio(problem.exact, problem.features, "shifted", "reference")
    assert np.abs(np.log(combined.ratio) - exact).mean() < 0.15
    table = fit.members(progress=False)
    assert (table.excess.abs() < 0.02).all()
    # the same events, as if they were others: then all members are asked
    other = fit.ratio(problem.features, progress=False)
    assert set(other.members) == {16}
    assert not np.array_equal(other.ratio, combined.ratio)
    mean = fit.ratio(problem.features[:50], how="geometric", progress=False).ratio
    assert (mean < other.ratio[:50]).all()
    median = fit.ratio(problem.features[:50], how="median", progress=False)
    assert np.isnan(median.sigma).all()
    assert np.abs(np.log(median.ratio / mean)).max() < 0.3


def test_joint_densities_teach_more_than_classes(tmp_path) -> None:
    """z is normal about 0 or 1, and x is z with some noise: the ratio of x is known."""
    random, noise = np.random.default_rng(4), 0.3
    signal = np.arange(4000) % 2
    z = random.normal(size=4000) + signal
    x = z + noise * random.normal(size=4000)
    joint = np.stack([-((z - 1) ** 2) / 2, -(z**2) / 2], axis=1)
    labels = np.where(signal, "signal", "background")
    problem = sbi.Problem.of(x, labels, classes=["signal", "background"], joint=joint)
    exact = (x - 0.5) / (1 + noise**2)
    error = {}
    for loss in ("bce", "alice"):
        made = sbi.Ensemble(problem, 4, hidden=(16,), batch=64, learning_rate=5e-3, loss=loss)
        ratio = made.fit(folder=tmp_path / loss, progress=False).ratio(progress=False).ratio
        error[loss] = float(np.sqrt(np.mean((np.log(ratio) - exact)[np.abs(x) < 2] ** 2)))
    assert error["alice"] < error["bce"] / 2
    with pytest.raises(sbi.InputError, match=r"joint has shape \[4000, 1\]"):
        sbi.Problem.of(x, labels, classes=["signal", "background"], joint=joint[:, :1])
    passed = problem.select(lambda features: features["x0"] > 0)
    np.testing.assert_array_equal(passed.joint, joint[problem.features[:, 0] > 0])
