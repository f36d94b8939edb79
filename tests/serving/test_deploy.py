"""Models put onto a real Triton while it answers, and one that is refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from served_models import servable
from torch import nn

from sml_kernel import records, sbi, serving
from sml_kernel.serving import repository

X = np.ones((2, 3), np.float32)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deploy") / "run"


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[serving.Service]:
    try:
        serving.install_triton()
    except serving.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Triton: {error}")
    examples = {"net": torch.zeros(1, 3)}
    with serving.start(
        {"net": network(0)}, examples=examples, folder=folder, queue_delay_us=77, progress=False
    ) as started:
        yield started


def test_requests_during_a_deployment_are_answered_by_one_version_or_the_other(
    service: serving.Service, folder: Path
) -> None:
    models = {"1": network(0), "2": network(1)}
    expected = {name: model(torch.from_numpy(X)).detach().numpy() for name, model in models.items()}
    hashes = {"1": service.describe("net").hash}
    seen: list[tuple[str, str]] = []
    wrong: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.005):  # the deployment wants the cores too
            try:
                answer = service.infer("net", X, transport="grpc")
            except Exception as error:
                wrong.append(error)
                continue
            seen.append((answer.served.version, answer.served.hash))
            if np.abs(answer - expected[answer.served.version]).max() > 1e-6:
                wrong.append(answer)

    with serving.connect(folder) as elsewhere:
        assert elsewhere.infer("net", X).served.version == "1"
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for each in threads:
            each.start()
        served = service.deploy("net", models["2"], torch.zeros(1, 3))
        after = service.infer("net", X)
        stop.set()
        for each in threads:
            each.join()
        there = elsewhere.infer("net", X).served
    hashes["2"] = served.hash
    assert not wrong
    assert {version for version, _ in seen} >= {"1"}
    assert set(seen) <= set(hashes.items())
    assert (after.served.version, there.version, there.hash) == ("2", "2", served.hash)
    assert hashes["1"] != hashes["2"]
    config = service.transports["http"].config("net")
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 77
    (row,) = records.read(folder, "deploy").itertuples()
    assert (row.model, row.version, row.hash) == ("net", 2, served.hash)


THROUGH_NUMPY = """
from sml_kernel.serving import executor

class TritonPythonModel(executor.TritonPythonModel):
    def _output(self, name, value):
        return self._backend.Tensor(name, value.numpy())
"""


def test_what_is_refused_leaves_the_one_before_it_answering(
    service: serving.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = service.infer("net", X)
    with pytest.raises(serving.StartError, match="this one never loads"):
        service.deploy("net", servable("net", "failing"))
    with monkeypatch.context() as patch:
        patch.setattr(repository, "_MODEL", THROUGH_NUMPY)
        with pytest.raises(serving.MismatchError, match="corrupts arrays"):
            service.deploy("net", network(5), torch.zeros(1, 3))
    after = service.infer("net", X)
    np.testing.assert_array_equal(after, before)
    assert after.served == before.served
    assert service.models() == ["net"]


def test_an_ensemble_is_deployed_and_says_what_its_fit_says(
    service: serving.Service, tmp_path: Path
) -> None:
    problem = sbi.draw(sbi.GaussianShift(1.0), 400, seed=3)
    settings = {"hidden": (8,), "epochs": 2, "batch": 128}
    fit = sbi.Ensemble(problem, 12, **settings).fit(folder=tmp_path / "fit", progress=False)
    served = service.deploy("ratio", fit)
    assert service.models() == ["net", "ratio"]
    x = np.linspace(-2, 3, 50, dtype=np.float32)[:, None]
    for transport in ("grpc", "http"):
        mean, spread = service.infer("ratio", x, transport=transport)
        expected = fit.ratio(x, progress=False)
        np.testing.assert_allclose(mean, expected.ratio, rtol=1e-6)
        np.testing.assert_allclose(spread, expected.sigma, rtol=1e-5)
    assert (served.version, mean.served.run) == ("1", str(fit.folder))
    with pytest.raises(serving.UnknownModelError, match="ready: net, ratio"):
        service.infer("other", X)
