"""What is written for a Triton server, and what is refused before one is started."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sml_kernel import serving
from sml_kernel.serving import answers, checks, executor, install, merging, modules
from sml_kernel.tracking.model import InteractionGNN

CONFIG = """\
name: "net"
backend: "python"
max_batch_size: 64
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 7 ] },
  { name: "weight" data_type: TYPE_FP64 dims: [ 1 ] reshape { shape: [ ] } }
]
output [
  { name: "mean" data_type: TYPE_FP64 dims: [ 1 ] reshape { shape: [ ] } },
  { name: "above" data_type: TYPE_UINT8 dims: [ 3 ] }
]
instance_group [
  { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }
]
dynamic_batching { preferred_batch_size: [ 8, 16 ] max_queue_delay_microseconds: 500 }
parameters { key: "hash" value { string_value: "HASH" } }
parameters { key: "version" value { string_value: "1" } }
parameters { key: "run" value { string_value: "runs/\\"a\\"" } }
parameters { key: "booleans" value { string_value: "[\\"above\\"]" } }
model_warmup [ {
  name: "example" batch_size: 2
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 7 ] input_data_file: "x" } }
  inputs { key: "weight" value { data_type: TYPE_FP64 dims: [ 1 ] input_data_file: "weight" } }
} ]
"""


class Weighted(nn.Module):
    """Two inputs, two outputs, one of them a number a row and one of booleans."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.inner(x)
        return {"mean": y.mean(1) * weight, "above": y > 0}


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Summing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(0, keepdim=True).expand(1, 3)


class Counted(nn.Module):
    """Says what it is made from, so that it is rebuilt."""

    def __init__(self, settings: dict[str, int]) -> None:
        super().__init__()
        self.settings = settings
        self.inner = nn.Linear(settings["width"], 1)

    @classmethod
    def from_settings(cls, settings: dict[str, int]) -> Counted:
        return cls(settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def weighted() -> serving.Servable:
    torch.manual_seed(0)
    example = (torch.zeros(2, 7), torch.ones(2, dtype=torch.float64))
    return serving.as_servable("net", Weighted(), example)


def test_the_repository_is_whole_and_says_what_it_holds(tmp_path: Path) -> None:
    made = {**vars(weighted()), "run": 'runs/"a"'}
    model = serving.Servable(**made)
    deployment = serving.Deployment(2, 64, 500, (8, 16), gpus=(0, 1))
    hashes = serving.write(tmp_path, [model], deployment)
    folder = tmp_path / "net"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    stored = (folder / "1" / "parameters.safetensors").read_bytes()
    assert hashes == {"net": hashlib.sha256(stored).hexdigest()} == {"net": model.hash()}
    assert (folder / "config.pbtxt").read_text() == CONFIG.replace("HASH", hashes["net"])
    assert files == [
        "1/model.py",
        "1/parameters.safetensors",
        "1/program.pt2",
        "config.pbtxt",
        "warmup/weight",
        "warmup/x",
    ]
    assert (folder / "warmup" / "weight").read_bytes() == np.ones(2).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    with pytest.raises(serving.ServableError, match="two models of the name net"):
        serving.write(tmp_path, [model])


def test_what_is_stored_makes_the_same_model_for_any_number_of_rows(tmp_path: Path) -> None:
    model = weighted()
    hashes = serving.write(tmp_path, [model])
    made, merge = executor.load(tmp_path / "net" / "1", hashes["net"])
    generator = torch.Generator().manual_seed(1)
    sizes = [1, 5, 2]
    requests = [
        (torch.randn(n, 7, generator=generator), torch.arange(n).double() + 1) for n in sizes
    ]
    for request, answer in zip(requests, executor.answers(made, merge, requests), strict=True):
        assert not isinstance(answer, Exception)
        direct = model.direct([each.numpy() for each in request])
        # joined or alone, a row is the same sum of 7 products, in another order at most
        np.testing.assert_allclose(answer[0].numpy(), direct[0], rtol=0, atol=1e-6 * request[1][-1])
        np.testing.assert_array_equal(answer[1].numpy(), direct[1])


def test_nothing_is_pickled_and_weights_are_stored_once(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(100, 1000), nn.BatchNorm1d(1000), nn.Linear(1000, 1))
    serving.write(tmp_path, [serving.as_servable("net", module, torch.zeros(1, 100))])
    program = tmp_path / "net" / "1" / modules.PROGRAM
    assert program.stat().st_size < 50_000  # the weights alone are 400 kB
    # what pickles of every protocol end with, and what torch.save would name its own
    assert b"data.pkl" not in program.read_bytes()


def test_settings_rebuild_the_class_and_are_part_of_the_hash(tmp_path: Path) -> None:
    model = serving.as_servable("net", Counted({"width": 4}), torch.zeros(1, 4))
    assert model.builder.endswith(":rebuilt")
    assert not model.files
    made, _ = executor.load(tmp_path / "net" / "1", serving.write(tmp_path, [model])["net"])
    assert type(made) is Counted
    other = Counted({"width": 4, "seed": 1})
    other.load_state_dict(made.state_dict())
    assert serving.as_servable("net", other, torch.zeros(1, 4)).hash() != model.hash()
    assert modules.rebuildable(InteractionGNN(3, 2, hidden=4, iterations=1))


def test_files_that_were_changed_are_not_loaded(tmp_path: Path) -> None:
    hashes = serving.write(tmp_path, [weighted()])
    for name in ("program.pt2", "parameters.safetensors"):
        path = tmp_path / "net" / "1" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(executor.DamagedError, match=name):
            executor.load(path.parent, hashes["net"])
        path.write_bytes(whole)


def test_the_module_is_copied_and_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model = serving.as_servable("net", module, torch.ones(1, 2))
    before = model.direct([np.ones((1, 2), np.float32)])[0]
    assert module.training
    assert module[0].weight.requires_grad
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(model.direct([np.ones((1, 2), np.float32)])[0], before)


@pytest.mark.parametrize(
    ("model", "example", "told"),
    [
        (nn.Linear(2, 2), None, "say what it takes"),
        (Branching(), torch.zeros(1, 2), "cannot be recorded by torch.export"),
        (Summing(), torch.zeros(2, 3), "first axis has to be the batch"),
        (nn.Linear(2, 2), torch.zeros(1, 2, dtype=torch.complex64), "complex64"),
        (nn.Linear(2, 2), torch.zeros(0, 2), "needs a row"),
        (["not a model"], None, "served are torch modules"),
    ],
)
def test_what_cannot_be_served_says_why(model: object, example: object, told: str) -> None:
    with pytest.raises(serving.ServableError, match=told):
        serving.as_servable("net", model, example)


def test_a_servable_of_another_object_is_checked_by_name() -> None:
    class Fit:
        def servable(self, name: str) -> dict[str, object]:
            return {"call": len, "parameter": {}}

    with pytest.raises(serving.ServableError, match=r"\['parameter'\] and lacks \['arguments'"):
        serving.as_servable("ratio", Fit())
    with pytest.raises(serving.ServableError, match="cannot name a model"):
        serving.as_servable("../up", nn.Linear(1, 1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="preferred batches are from 1 to max_batch, 8"):
        serving.Deployment(max_batch=8, preferred_batch=(16,))


def test_a_request_that_fails_does_not_fail_those_it_was_joined_with() -> None:
    def picky(x: torch.Tensor) -> torch.Tensor:
        if (x < 0).any():
            raise ValueError("negative")
        return x + 1

    good, bad = torch.ones(2, 1), -torch.ones(1, 1)
    found = executor.answers(picky, merging.rows, [(good,), (bad,), (good,)])
    assert [isinstance(each, Exception) for each in found] == [False, True, False]
    assert found[0][0].tolist() == [[2], [2]]  # type: ignore[index]
    (short,) = executor.answers(lambda x: x[:1], merging.rows, [(good,)])
    assert "given 2 rows and returned (1, 1)" in str(short)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((2, 7)), r"takes 2 inputs"),
        ((np.zeros((2, 7)), np.ones(2)), "is float32, not float64"),
        ((np.zeros((2, 6), "f4"), np.ones(2)), r"x of 'net' is \[n, 7\], not \[2, 6\]"),
        ((np.zeros((2, 7), "f4"), np.ones((2, 1))), r"weight of 'net' is \[n\], not \[2, 1\]"),
        ((np.zeros((2, 7), "f4"), np.ones(3)), "have .2, 3. rows"),
        ((np.zeros((9, 7), "f4"), np.ones(9)), "from 1 to 8 rows"),
        ((np.zeros((0, 7), "f4"), np.ones(0)), "from 1 to 8 rows"),
        ({"x": np.zeros((2, 7), "f4")}, "takes x, weight, not x"),
        ((np.float32(1), np.ones(2)), "single number"),
    ],
)
def test_a_request_that_does_not_fit_is_not_sent(given: object, told: str) -> None:
    model = weighted()
    served = answers.Served("net", "1", "", "", model.inputs, model.outputs, 8)
    with pytest.raises(serving.InputError, match=told):
        answers.fitting(served, given)


def test_an_answer_knows_its_model_and_what_is_computed_from_it_is_plain() -> None:
    served = answers.Served("net", "1", "abc", "runs/a", (), (), 8)
    got = answers.answer(np.arange(4.0), served)
    assert got[:2].served.hash == "abc"
    assert type(got * 2) is np.ndarray
    assert type(got.sum()) is np.float64


def test_differences_count_what_is_not_finite() -> None:
    a = np.array([1.0, np.nan, np.inf])
    assert checks.max_difference(a, a.copy()) == 0
    assert checks.max_difference(a, np.array([1.5, np.nan, np.inf])) == 0.5
    assert checks.max_difference(a, np.array([1.0, 2.0, np.inf])) == np.inf


@pytest.mark.parametrize(
    ("platform", "told"),
    [
        (("darwin", "arm64", ("", ""), "3.11"), "not darwin on arm64"),
        (("linux", "x86_64", ("glibc", "2.31"), "3.11"), "needs glibc 2.35, this is glibc 2.31"),
        (("linux", "x86_64", ("", ""), "3.11"), "needs glibc"),
        (("linux", "x86_64", ("glibc", "2.36"), "3.13"), "3.11 and 3.12, not 3.13"),
    ],
)
def test_a_machine_without_triton_is_told_what_to_do(platform: tuple, told: str) -> None:
    with pytest.raises(serving.InstallError, match=told):
        install._check_platform(*platform)


def test_what_comes_with_another_hash_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that cannot be reached, then a wheel that is not the one it should be."""
    monkeypatch.setattr(install, "_HASH", "0" * 64)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(serving.InstallError, match="did not come"):
        serving.install_triton(tmp_path)
    wheel = tmp_path / "nvidia_pytriton-0.7.0-py3-none-any.whl"
    wheel.write_bytes(b"not what was asked for")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(serving.InstallError, match="DO NOT MATCH THE HASHES"):
        serving.install_triton(tmp_path)
    assert not list(tmp_path.glob("triton-*"))


def test_the_metadata_is_json_that_names_importable_things(tmp_path: Path) -> None:
    from safetensors import safe_open

    serving.write(tmp_path, [weighted()])
    with safe_open(tmp_path / "net" / "1" / "parameters.safetensors", "pt") as stream:
        said = json.loads(stream.metadata()["servable"])
    assert modules.import_name(said["merge"]) is merging.rows
    assert modules.import_name(said["builder"]) is modules.exported
    with pytest.raises(ImportError, match="has no 'none'"):
        modules.import_name("sml_kernel.serving.modules:none")
