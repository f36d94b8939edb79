"""Graphs of any size and whole events through a real Triton, alone and joined."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from sml_kernel import serving, tracking


@pytest.fixture(scope="module")
def net() -> tracking.Pretrained:
    return tracking.pretrained("ttbar-pileup50")


@pytest.fixture(scope="module")
def service(net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Service]:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    with serving.start(
        {"tracker": net.model, "tracks": net},
        queue_delay_us=20_000,  # long, so that requests meet
        folder=tmp_path_factory.mktemp("graphs") / "run",
        progress=False,
    ) as started:
        yield started


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[tracking.Event]:
    cache: Path = tmp_path_factory.mktemp("events")
    return [
        event
        for vertices in (0, 1, 3)
        for event in tracking.simulate(4, vertices, 7, process="gun", progress=False, cache=cache)
    ]


@pytest.fixture(scope="module")
def graphs(net, events) -> list:
    return tracking.build_graphs(events, net.cuts)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_graph_of_any_size_gets_the_scores_of_the_network_called_directly(
    service, net, graphs, transport: str
) -> None:
    assert len({graph.num_edges for graph in graphs}) > 5
    for graph in graphs:
        served = service.infer("tracker", graph, transport=transport)
        direct = tracking.score_segments(net.model, graph)
        assert served.shape == direct.shape
        assert np.abs(served - direct).max() <= 1e-6
    nothing = (torch.zeros(1, 3), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 6))
    assert service.infer("tracker", nothing, transport=transport).shape == (0,)


def test_graphs_that_wait_together_are_joined_and_one_that_is_wrong_fails_alone(
    service, net, graphs
) -> None:
    asked = [graph.clone() for graph in graphs * 4]
    wrong = set(range(5, len(asked), 9))
    for each in wrong:
        asked[each].edge_index[0, 3] = asked[each].num_nodes
    client = service.transports["grpc"].client
    counts = [_counts(client)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda graph: _answer(service, graph), asked))
    counts.append(_counts(client))
    for each, (answer, graph) in enumerate(zip(answers, asked, strict=True)):
        if each in wrong:
            assert isinstance(answer, serving.ModelError)
            assert f"edge 3 joins nodes [{graph.num_nodes}," in str(answer)
        else:
            direct = tracking.score_segments(net.model, graph)
            assert np.abs(answer - direct).max() <= 1e-5
    inferences, executions = np.diff(counts, axis=0)[0]
    assert inferences > 2 * executions


def _answer(service: serving.Service, graph) -> np.ndarray | Exception:
    try:
        return service.infer("tracker", graph)
    except serving.ModelError as error:
        return error


def _counts(client) -> tuple[int, int]:
    (said,) = client.get_inference_statistics("tracker").model_stats
    return said.inference_count, said.execution_count


def test_hits_become_tracks_in_one_request(service, net, events, graphs) -> None:
    for event, graph in zip(events, graphs, strict=True):
        served = service.infer("tracks", event.hits)
        np.testing.assert_array_equal(served, tracking.find_tracks(net.model, graph))
    columns = {name: event.hits[name].to_numpy() for name in ("x", "y", "z", "volume_id")}
    with pytest.raises(serving.ModelError, match="differ in length"):
        service.infer("tracks", columns | {"layer_id": np.ones(3, np.int32)})
    with pytest.raises(serving.InputError, match="x of 'tracks' is float32, not float64"):
        service.infer("tracks", event.hits.assign(x=event.hits.x.astype(float)))
