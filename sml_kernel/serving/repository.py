"""A standard model repository of Triton: text and files, which any Triton server loads.

::

    net/config.pbtxt                 what it takes and gives, how many instances, how requests wait
    net/1/model.py                   a line that imports `sml_kernel.serving.executor`
    net/1/parameters.safetensors     the parameters, and what makes the model, as JSON
    net/1/program.pt2                of a recorded module only (`sml_kernel.serving.modules`)
    net/warmup/x                     the example, which each instance answers before it is ready

The server's Python needs this package and what the model's class imports. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sml_kernel.serving.errors import ServableError
from sml_kernel.serving.servable import Field, Servable

PARAMETERS = "parameters.safetensors"
_MODEL = '''"""{name}: what it is stands in the metadata of {file} beside this file."""

from sml_kernel.serving.executor import TritonPythonModel  # noqa: F401
'''


@dataclass(frozen=True)
class Deployment:
    """How a server runs a model.

    Attributes
    ----------
    instances
        Copies of the model, each in a process of its own; of each GPU where `gpus` are named.
    max_batch
        Rows that are joined to one call at most, and that a request has at most.
    queue_delay_us
        Microseconds that a request waits for others to join it, at most.
    preferred_batch
        Numbers of rows, or of requests that are ragged, at which a batch goes at once, without
        waiting longer.
    warmup
        Answer the example before the model is ready: the first request is not the slow one.
    gpus
        Numbers of the GPUs it runs on. Empty: the CPU.
    max_joined
        Requests of a ragged model, such as one of graphs, that are joined to one call at most.

    Raises
    ------
    ValueError
        Numbers that no server takes.
    """

    instances: int = 1
    max_batch: int = 1024
    queue_delay_us: int = 200
    preferred_batch: tuple[int, ...] = ()
    warmup: bool = True
    gpus: tuple[int, ...] = ()
    max_joined: int = 16

    def __post_init__(self) -> None:
        if min(self.instances, self.max_batch, self.max_joined) < 1 or self.queue_delay_us < 0:
            raise ValueError(
                "instances, max_batch and max_joined are at least 1 and queue_delay_us at least "
                f"0, not {self.instances}, {self.max_batch}, {self.max_joined} and "
                f"{self.queue_delay_us}"
            )
        if any(not 1 <= each <= self.max_batch for each in self.preferred_batch):
            raise ValueError(
                f"preferred batches are from 1 to max_batch, {self.max_batch}, not "
                f"{list(self.preferred_batch)}"
            )


def config(model: Servable, deployment: Deployment, model_hash: str, version: int = 1) -> str:
    """The text of ``config.pbtxt``.

    An input or output that is one number a row has the shape [n, 1] on the wire, for Triton has no
    tensors of less; ``reshape`` says so in its own words. A request of a ragged model is a batch
    of one: its tensors have a first axis of 1 on the wire.
    """
    most = deployment.max_joined if model.ragged else deployment.max_batch
    any_size = " allow_ragged_batch: true" if model.ragged else ""
    blocks = [
        f'name: "{model.name}"\nbackend: "python"\nmax_batch_size: {most}',
        _list("input", [_field(each) + any_size for each in model.inputs]),
        _list("output", [_field(each) for each in model.outputs]),
        _instances(deployment),
        _batching(deployment, most),
        *(_parameter(key, value) for key, value in _marks(model, model_hash, version).items()),
    ]
    if deployment.warmup:
        blocks.append(_warmup(model, deployment))
    return "\n".join(blocks) + "\n"


def write(
    folder: str | os.PathLike[str],
    models: Iterable[Servable],
    deployment: Deployment | None = None,
) -> dict[str, str]:
    """Write a repository; each model's folder is there whole or not at all.

    Returns
    -------
    dict
        The hash of each model, by its name.

    Raises
    ------
    ServableError
        Two models of one name, or a folder that holds one of that name.
    """
    path, models = Path(folder), list(models)
    names = [model.name for model in models]
    twice = {name for name in names if names.count(name) > 1}
    there = sorted(twice | {name for name in names if (path / name).exists()})
    if there:
        raise ServableError(f"{path} would hold two models of the name {', '.join(there)}")
    path.mkdir(parents=True, exist_ok=True)
    return {model.name: _write(path, model, deployment or Deployment()) for model in models}


def wire(model: Servable, deployment: Deployment, version: int) -> tuple[str, dict[str, bytes]]:
    """What `write` writes, as Triton's call to load a model takes it.

    Returns
    -------
    tuple
        The configuration as JSON, and the files by their names.
    """
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    text = config(model, deployment, model.hash(), version)
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    files = _files(model, deployment, version)
    return (
        json_format.MessageToJson(parsed, preserving_proto_field_name=True),
        {f"file:{name}": content for name, content in files.items()},
    )


def _files(model: Servable, deployment: Deployment, version: int) -> dict[str, bytes]:
    """All files of a model but its configuration, by their places in its folder."""
    found = {
        f"{version}/model.py": _MODEL.format(name=model.name, file=PARAMETERS).encode(),
        f"{version}/{PARAMETERS}": model.content(),
    }
    found |= {f"{version}/{name}": content for name, content in model.files.items()}
    if deployment.warmup:
        pairs = zip(model.inputs, _example(model, deployment), strict=True)
        found |= {f"warmup/{each.name}": values.tobytes() for each, values in pairs}
    return found


def _write(folder: Path, model: Servable, deployment: Deployment) -> str:
    model_hash = model.hash()
    partial = folder / f".{model.name}.{secrets.token_hex(4)}"
    try:
        for name, content in _files(model, deployment, 1).items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        (partial / "config.pbtxt").write_text(config(model, deployment, model_hash))
        partial.replace(folder / model.name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return model_hash


def _example(model: Servable, deployment: Deployment) -> tuple[np.ndarray, ...]:
    if model.ragged:
        return model.example
    return tuple(values[: deployment.max_batch] for values in model.example)


def _list(name: str, blocks: Sequence[str]) -> str:
    return f"{name} [\n" + ",\n".join(f"  {{ {block} }}" for block in blocks) + "\n]"


def _field(field: Field) -> str:
    single = not field.shape
    dims = ", ".join(map(str, field.shape or (1,)))
    reshape = " reshape { shape: [ ] }" if single else ""
    return f'name: "{field.name}" data_type: TYPE_{field.wire_type} dims: [ {dims} ]{reshape}'


def _instances(deployment: Deployment) -> str:
    where = "kind: KIND_CPU"
    if deployment.gpus:
        where = f"kind: KIND_GPU gpus: [ {', '.join(map(str, deployment.gpus))} ]"
    return _list("instance_group", [f"count: {deployment.instances} {where}"])


def _batching(deployment: Deployment, most: int) -> str:
    preferred = ", ".join(str(each) for each in deployment.preferred_batch if each <= most)
    sizes = f"preferred_batch_size: [ {preferred} ] " if preferred else ""
    delay = f"max_queue_delay_microseconds: {deployment.queue_delay_us}"
    return f"dynamic_batching {{ {sizes}{delay} }}"


def _marks(model: Servable, model_hash: str, version: int) -> dict[str, str]:
    """What clients and the server's own code are told of a model beside Triton's words."""
    booleans = [each.name for each in (*model.inputs, *model.outputs) if each.dtype == "bool"]
    marks = {"hash": model_hash, "version": str(version), "run": model.run}
    if model.ragged:
        marks["ragged"] = "true"
    if booleans:
        marks["booleans"] = json.dumps(booleans)
    return marks


def _parameter(key: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'parameters {{ key: "{key}" value {{ string_value: "{quoted}" }} }}'


def _warmup(model: Servable, deployment: Deployment) -> str:
    example = _example(model, deployment)
    lines = [f'  name: "example" batch_size: {1 if model.ragged else len(example[0])}']
    for field, values in zip(model.inputs, example, strict=True):
        shape = values.shape if model.ragged else values.shape[1:] or (1,)
        dims = ", ".join(map(str, shape))
        lines.append(
            f'  inputs {{ key: "{field.name}" value {{ data_type: TYPE_{field.wire_type} '
            f'dims: [ {dims} ] input_data_file: "{field.name}" }} }}'
        )
    return "model_warmup [ {\n" + "\n".join(lines) + "\n} ]"
