"""What runs inside the server: the class that every ``model.py`` of a repository imports.

It needs nothing of the process that started the server, so the same repository is served by a
Triton elsewhere, where this package is installed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch

from sml_kernel.serving.merging import Tensors
from sml_kernel.serving.modules import import_name
from sml_kernel.serving.repository import PARAMETERS
from sml_kernel.serving.servable import named


class DamagedError(ValueError):
    """The files of a model are not those that were written."""


def load(folder: Path, expected: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The model and the merger of a version's folder.

    Raises
    ------
    DamagedError
        A file is not the one that the hash in the configuration was made of.
    """
    from safetensors import safe_open
    from safetensors.torch import load as load_tensors

    content = (folder / PARAMETERS).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise DamagedError(f"{folder / PARAMETERS} was changed: write the repository again")
    with safe_open(folder / PARAMETERS, "pt") as stream:
        made_by = json.loads(stream.metadata()["servable"])
    for name, digest in made_by["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise DamagedError(f"{folder / name} was changed: write the repository again")
    builder = import_name(made_by["builder"])
    model = builder(made_by["arguments"], load_tensors(content), folder)
    return model, import_name(made_by["merge"])


def answers(
    model: Callable[..., Any], merge: Callable[..., Any], requests: Sequence[Tensors]
) -> list[Tensors | Exception]:
    """Outputs for each request, from one call; a request that cannot be answered fails alone."""
    try:
        with torch.inference_mode():
            inputs, split = merge(requests)
            return list(split(tuple(named(model(*inputs)).values())))
    except Exception as error:  # whatever the model raises is the answer to who asked
        if len(requests) == 1:
            return [error]
        return [answers(model, merge, [request])[0] for request in requests]


@final
class TritonPythonModel:
    """Triton's hook: made by the server, one an instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. `args` are Triton's: the configuration, the folder, the device."""
        import triton_python_backend_utils as backend  # it exists in the server alone

        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self._backend = backend
        self._device = torch.device("cpu")
        if args["model_instance_kind"] == "GPU":
            self._device = torch.device("cuda", int(args["model_instance_device_id"]))
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = [each["name"] for each in config["output"]]
        marks = {key: each["string_value"] for key, each in config["parameters"].items()}
        self._ragged = "ragged" in marks
        self._booleans = json.loads(marks.get("booleans", "[]"))
        model, self._merge = load(folder, marks["hash"])
        self._model = model.to(self._device) if isinstance(model, torch.nn.Module) else model

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton joined."""
        given = [tuple(self._input(each, name) for name in self._inputs) for each in requests]
        return [self._response(each) for each in answers(self._model, self._merge, given)]

    def _input(self, request: Any, name: str) -> torch.Tensor:
        tensor = self._backend.get_input_tensor_by_name(request, name)
        # nothing is copied; as_numpy() would be wrong under NumPy 2
        values = torch.from_dlpack(tensor.to_dlpack()).to(self._device)
        values = values.bool() if name in self._booleans else values
        return values[0] if self._ragged else values  # the batch of one that a request is

    def _output(self, name: str, value: torch.Tensor) -> Any:
        value = value.to(torch.uint8) if name in self._booleans else value
        value = value[None] if self._ragged else value
        return self._backend.Tensor.from_dlpack(name, value.contiguous())

    def _response(self, answer: Tensors | Exception) -> Any:
        if isinstance(answer, Exception):
            told = f"{type(answer).__name__}: {answer}"
            return self._backend.InferenceResponse([], self._backend.TritonError(told))
        pairs = zip(self._outputs, answer, strict=True)
        return self._backend.InferenceResponse([self._output(name, each) for name, each in pairs])
