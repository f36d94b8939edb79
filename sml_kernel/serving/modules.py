"""A `torch.nn.Module` as data: how it is described for the server, and made again there.

A pickle would run whatever code it holds, and break when a class is moved. So a module goes one of
two ways:

rebuilt
    Its class can be imported and says what it is made from: it has ``settings``, which JSON can
    hold, and ``from_settings(settings)``, as `sml_kernel.tracking.InteractionGNN` has. The server
    imports that class, the one of the training, and loads the parameters into it.
exported
    Any other module, also one defined in a notebook: `torch.export` records its operations with
    the first axis left open. The archive (``program.pt2``) holds JSON and raw numbers; the
    example inputs, its one pickle, are left out, and so are the parameters, which go to the
    safetensors file. A module whose Python code branches on values cannot be recorded; it is
    refused, with torch's reason.
"""

from __future__ import annotations

import importlib
import io
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sml_kernel.serving.errors import ServableError

PROGRAM = "program.pt2"


def import_name(named: str) -> Any:
    """What ``"package.module:qualified.name"`` names.

    Raises
    ------
    ImportError
        It cannot be imported here.
    """
    module, _, name = named.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportError(f"{module} has no {name!r}") from None
    return found


def rebuildable(module: nn.Module) -> bool:
    """Whether the class can be imported, and makes the module again from its ``settings``."""
    kind = type(module)
    if not (hasattr(module, "settings") and hasattr(kind, "from_settings")):
        return False
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        return False
    try:
        json.dumps(module.settings)
    except TypeError:
        return False
    return True


def rebuilt(arguments: Mapping[str, Any], parameters: Mapping[str, Tensor], _: Path) -> nn.Module:
    """Builder of the server: the class ``arguments["class"]`` from ``arguments["settings"]``."""
    made = import_name(arguments["class"]).from_settings(arguments["settings"])
    made.load_state_dict(parameters)
    return made.eval()


def exported(
    arguments: Mapping[str, Any], parameters: Mapping[str, Tensor], folder: Path
) -> nn.Module:
    """Builder of the server: the recorded program in `folder`, with the parameters put in."""
    module = torch.export.load(io.BytesIO((folder / PROGRAM).read_bytes())).module()
    module.load_state_dict(parameters, assign=True)
    return module


def export(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """Record `module` on `inputs`, at least two rows each, for any number of rows.

    Raises
    ------
    ServableError
        It cannot be recorded, or only with something pickled.
    """
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(
            module, tuple(inputs), dynamic_shapes=[{0: batch} for _ in inputs]
        )
    except Exception as error:  # torch raises many kinds, its own and the module's
        raise ServableError(
            f"{type(module).__name__} cannot be recorded by torch.export, with the first axis as "
            "batch of any length. Give its class `settings` and `from_settings` in a module that "
            f"can be imported, and it is rebuilt instead. torch says: {error}"
        ) from error
    for name, value in list(program.state_dict.items()):
        hollow = torch.zeros((), dtype=value.dtype).expand(value.shape)  # one number is stored
        is_parameter = isinstance(value, nn.Parameter)
        program.state_dict[name] = nn.Parameter(hollow, False) if is_parameter else hollow
    program.example_inputs = None
    archive = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # they are hollow
        torch.export.save(program, archive)
    return _without_pickles(module, archive.getvalue())


def _without_pickles(module: nn.Module, archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        for name in files.namelist():
            content = files.read(name)
            listed = json.loads(content)["config"] if name.endswith("_config.json") else {}
            pickled = any(each.get("use_pickle") for each in listed.values())
            if pickled or ("sample_inputs" in name and content):
                raise ServableError(
                    f"{type(module).__name__} holds something that torch.export can only pickle "
                    f"({name}), and nothing pickled is served: keep plain tensors in it"
                )
    return archive
