"""States of a training on disk: all that it needs to go on, whole or not there.

A state is one safetensors file, ``step-00000123.safetensors``: weights, the optimiser's tensors,
and where the training stands. The learning rate and the batches follow from that and from the
settings. It gets its name when all of it is on the disk, and carries a SHA-256 of its content, so
that one that was damaged later is found and the one before it taken.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sml_kernel.tracking.model import InteractionGNN

#: States that are kept, of the newest.
KEPT = 3


class CheckpointError(ValueError):
    """A state that is damaged, or none that is whole."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes
    ----------
    step
        Steps that are done.
    epoch_loss
        Sum of the losses of the steps of the epoch under way.
    epoch_s
        Seconds that it took so far.
    """

    step: int = 0
    epoch_loss: float = 0.0
    epoch_s: float = 0.0


def save(
    folder: Path,
    model: InteractionGNN,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> Path:
    """Write the state after `progress.step` steps, and remove all but the newest `KEPT`."""
    path = folder / f"step-{progress.step:08d}.safetensors"
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value for name, value in values.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    said = {"settings": json.dumps(model.settings), "progress": json.dumps(asdict(progress))}
    partial = folder / f".{path.name}.{os.getpid()}"
    save_file(tensors, partial, metadata={**said, "sha256": _digest(tensors, said)})
    _sync(partial)
    partial.replace(path)
    _sync(folder)
    for old in [*_states(folder)[KEPT:], *folder.glob(".step-*")]:
        old.unlink()
    return path


def newest(folder: Path) -> tuple[Path, dict[Path, str]]:
    """The newest state that is whole, and the newer ones that are not with what is wrong.

    Raises
    ------
    CheckpointError
        No state in `folder` is whole.
    """
    damaged = {}
    for path in _states(folder):
        try:
            _read(path)
        except CheckpointError as error:
            damaged[path] = str(error)
        else:
            return path, damaged
    told = "; ".join(damaged.values()) or "there is none"
    raise CheckpointError(f"no whole checkpoint in {folder} ({told}): train in another folder")


def load(
    path: Path, optimiser_of: Callable[..., torch.optim.Optimizer], device: torch.device
) -> tuple[InteractionGNN, torch.optim.Optimizer, Progress]:
    """Network, optimiser and progress as `save` was given them, on `device`.

    Raises
    ------
    CheckpointError
        The file is damaged.
    """
    tensors, said = _read(path)
    model = _model(tensors, said).to(device).train()
    optimiser = optimiser_of(model.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimiser":
            number, _, key = rest.partition("/")
            # a copy: the file, which this is mapped from, is removed while training goes on
            state.setdefault(int(number), {})[key] = value.clone()
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return model, optimiser, Progress(**json.loads(said["progress"]))


def load_model(path: Path) -> InteractionGNN:
    """The network of a state, to be used and not trained. Raises as `load`."""
    return _model(*_read(path)).eval()


def step_of(path: Path) -> int:
    """Steps that are done in a state, by its name."""
    return int(path.name.removeprefix("step-").removesuffix(".safetensors"))


def _model(tensors: dict[str, Tensor], said: dict[str, str]) -> InteractionGNN:
    model = InteractionGNN.from_settings(json.loads(said["settings"]))
    prefix = "model/"
    model.load_state_dict(
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    )
    return model


def _states(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as stream:
            said = dict(stream.metadata() or {})
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged: {error}") from None
    if said.pop("sha256", None) != _digest(tensors, said):
        raise CheckpointError(f"{path.name} is damaged: its content is not what was written")
    return tensors, said


def _digest(tensors: dict[str, Tensor], said: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until it is on the disk: a file's content, a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
