"""The real TrackML event: a network of our own simulated events finds its tracks."""

from __future__ import annotations

from pathlib import Path

from sml_kernel.tracking import (
    build_graphs,
    learn_cuts,
    read_trackml,
    score_segments,
    score_stages,
    simulate,
    train,
)


def test_tracks_are_found_in_a_real_trackml_event(shared, tmp_path: Path) -> None:
    """Cuts and network come from our own simulation of the same detector, none from the event."""
    (event,) = read_trackml(shared("trackml"))
    simulated = simulate(20, 4, 11, process="gun", cache=tmp_path / "events", progress=False)
    cuts = learn_cuts(simulated)
    run = train(
        build_graphs(simulated, cuts),
        hidden=16,
        iterations=3,
        epochs=5,
        batch=2,
        learning_rate=1e-2,
        folder=tmp_path / "run",
        threads=1,
    )
    (graph,) = build_graphs([event], cuts)
    stages = score_stages([event], [graph], [score_segments(run.model, graph)], "central")
    print(stages.headline())
    assert graph.kept_segments > 0.9 * graph.true_segments
    assert stages.network.row()["particles"] == 41
    assert stages.ceiling.row()["efficiency"] > 0.95
    assert stages.network.row()["efficiency"] > 0.7
