"""Time to a target, on trainings whose curve is known."""

from __future__ import annotations

import functools
import json
import math

import holoviews as hv
import hvplot
import pytest
import small_training

from sml_kernel import plots, records, scaling, tracking


def training(broken=()):
    """A loss that halves each epoch, sooner with a higher learning rate; knows what it ran."""
    ran = []

    def train(*, ranks, batch, learning_rate, seed, folder):
        ran.append((ranks, batch, round(learning_rate, 6), seed))
        if (ranks, seed) in broken:
            raise RuntimeError("a rank was killed")
        for epoch in range(8):
            loss = 0.5 ** ((epoch + 1) * learning_rate / 1e-3)
            yield {"kind": "step", "loss": loss}
            yield {"kind": "epoch", "validation_loss": loss, "seconds": 8.0 / ranks}

    return train, ran


def asked(folder, **changed):
    given = {"ranks": [1, 4], "batch": 2, "learning_rate": 1e-3, "target": 0.07, "seeds": [0, 1]}
    return {**given, "folder": folder, "progress": False, **changed}


def test_rules_are_told_apart_and_the_target_stops_a_training(tmp_path) -> None:
    train, ran = training()
    study = scaling.time_to_target(train, **asked(tmp_path / "study"))
    assert sorted(set(ran)) == [
        *((1, 2, 0.001, seed) for seed in (0, 1)),
        *((4, 8, rate, seed) for rate in (0.001, 0.002, 0.004) for seed in (0, 1)),
    ]
    table = study.table().set_index(["rule", "ranks"])
    assert table.seconds.to_dict() == {
        ("constant", 1): 32.0,  # four epochs of 8 s: 0.5^4 < 0.07
        ("constant", 4): 8.0,
        ("sqrt", 4): 4.0,
        ("linear", 4): 2.0,
    }
    assert table.speed_up["linear", 4] == 16
    drawn = plots.targets(study)
    labels = {line.label: line.dframe() for line in drawn.values() if type(line) is hv.Curve}
    assert labels["linear"].seconds.tolist() == [32.0, 2.0]  # from the control with one rank
    hvplot.save(drawn, tmp_path / "targets.html", resources="inline")
    assert table.rank_hours["linear", 4] == pytest.approx(8 / 3600)


def test_a_target_that_is_not_reached_has_no_time(tmp_path) -> None:
    train, _ = training()
    study = scaling.time_to_target(train, **asked(tmp_path, target=1e-9, rules=["constant"]))
    assert not study.points().reached.any()
    assert study.points().seconds.isna().all()
    assert math.isclose(study.points().best.min(), 0.5**8)
    assert study.table().reached.tolist() == [0, 0]


def test_a_study_goes_on_where_it_was(tmp_path) -> None:
    """A training that fails is recorded; an interrupt leaves the rest pending."""
    train, ran = training(broken=[(1, 1)])

    def interrupted(**given):
        if given["ranks"] == 4:
            raise KeyboardInterrupt
        return train(**given)

    with pytest.raises(KeyboardInterrupt):
        scaling.time_to_target(interrupted, **asked(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "stopped"
    study = scaling.time_to_target(train, **asked(tmp_path))
    points = study.points()
    assert points.status.value_counts().to_dict() == {"done": 7, "failed": 1}
    assert points[points.status == "failed"].reason.tolist() == ["RuntimeError: a rank was killed"]
    assert len(ran) == len(set(ran)) == 8  # none twice
    assert "8 trainings planned = 7 done, 1 failed, 0 pending" in repr(study)
    with pytest.raises(records.RecordError, match=r"target = 0.07, and you ask for 0.01"):
        scaling.time_to_target(train, **asked(tmp_path, target=0.01))
    with pytest.raises(scaling.StudyError, match="not cubic"):
        scaling.time_to_target(train, **asked(tmp_path, rules=["cubic"]))


def test_trainings_on_ranks_are_timed_to_a_target(tmp_path) -> None:
    """The real thing: gangs of one and two ranks, ended as soon as they are there."""
    graphs, held_out = small_training.graphs()
    kept = ("hidden", "iterations", "threads", "epochs")
    asked_for = {name: small_training.ASKED[name] for name in kept}
    study = scaling.time_to_target(
        functools.partial(tracking.train, graphs, held_out, **asked_for),
        ranks=[1, 2],
        batch=2,
        learning_rate=3e-3,
        target=0.5,
        rules=["constant", "linear"],
        seeds=[0],
        folder=tmp_path,
        progress=False,
    )
    points = study.points()
    assert points.status.tolist() == ["done"] * 3, points.reason.tolist()
    assert points.reached.all()
    assert (points.seconds > 0).all()
    assert points.batch.tolist() == [2, 4, 4]
    for point in points.itertuples():
        name = f"{point.rule}-{point.ranks}-{point.seed}"
        losses = records.read(tmp_path / "trainings" / name, "epoch").validation_loss.tolist()
        reached = int(point.epochs)
        assert losses[reached - 1] <= 0.5 < min([*losses[: reached - 1], 1.0])
        assert len(losses) < small_training.EPOCHS  # it ended at the target
