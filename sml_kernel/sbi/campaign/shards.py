"""Shards: what became of a stack of members, in files that never change.

A shard is a folder that appears at once or not at all::

    shards/00012/members.parquet       a row a member: key, losses, best epoch, failure
    shards/00012/weights.safetensors   ``parameters`` [M, P] float32, nan where a member failed

What is done and what is missing follows from these folders alone. Two workers that train the same
stack give the same numbers; the first to finish is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sml_kernel.sbi.stack.perceptrons import Perceptron

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from sml_kernel.sbi.stack.members import Trained

_TABLE, _WEIGHTS = "members.parquet", "weights.safetensors"


class ShardError(RuntimeError):
    """Files of a shard that are damaged, or are not of this plan; the message says which."""


def write(folder: Path, stack: int, keys: Sequence[str], trained: Sequence[Trained]) -> bool:
    """Store a stack, whole or not at all.

    Parameters
    ----------
    folder
        Of the campaign.
    keys, trained
        Of its members, in the order of the plan.

    Returns
    -------
    bool
        False if it was there already: that one is kept.
    """
    import pandas as pd
    import torch
    from safetensors.torch import save

    shape = trained[0].shape
    # one entry: the order of several differs from process to process, and bytes with it
    layout = {"shape": json.dumps(vars(shape))}
    weights = save({"parameters": torch.stack([each.parameters for each in trained])}, layout)
    rows = pd.DataFrame(
        {
            "key": list(keys),
            "failure": [each.failure for each in trained],
            "best_epoch": [each.best_epoch for each in trained],
            "epochs": [len(each.losses) for each in trained],
            "validation_loss": [min(each.losses, default=float("nan")) for each in trained],
            "losses": [list(each.losses) for each in trained],
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
    ).astype({"failure": "string"})

    def fill(partial: Path) -> None:
        rows.to_parquet(partial / _TABLE, index=False)
        (partial / _WEIGHTS).write_bytes(weights)

    return appear(path(folder, stack), fill)


def appear(target: Path, fill: Callable[[Path], None]) -> bool:
    """Make a folder that is whole when it is there; False if another was there before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    partial.mkdir()
    try:
        fill(partial)
        for file in partial.iterdir():
            _to_disk(file)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return False
        _to_disk(target.parent)
        return True
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def path(folder: Path, stack: int) -> Path:
    """Where the shard of a stack is, or will be."""
    return Path(folder) / "shards" / f"{stack:05d}"


def there(folder: Path) -> set[int]:
    """Stacks that have a shard."""
    return {int(each.name) for each in (Path(folder) / "shards").glob("[0-9]*")}


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind; for who holds the folder."""
    for each in (Path(folder) / "shards").glob(".*"):
        shutil.rmtree(each, ignore_errors=True)


def members(folder: Path, stack: int, keys: Sequence[str]) -> pd.DataFrame:
    """The table of a shard, checked against the keys of the plan.

    Raises
    ------
    ShardError
        It cannot be read, or holds other members.
    """
    import pandas as pd

    file = path(folder, stack) / _TABLE
    try:
        rows = pd.read_parquet(file)
    except Exception as error:  # what pyarrow raises for a damaged file differs by the damage
        raise _damaged(file, str(error)) from error
    if list(rows["key"]) != list(keys):
        raise _damaged(file, "it holds other members than the plan")
    return rows


def parameters(folder: Path, stack: int, rows: pd.DataFrame) -> tuple[Perceptron, Tensor]:
    """Shape and [M, P] parameters of the members of a shard's table.

    Raises
    ------
    ShardError
        The file is not what was written.
    """
    from safetensors import safe_open

    file = path(folder, stack) / _WEIGHTS
    digest = rows["weights_sha256"].iloc[0]
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise _damaged(file, "its bytes have changed since it was written")
    except OSError as error:
        raise _damaged(file, str(error)) from error
    with safe_open(file, "pt") as opened:
        layout = json.loads(opened.metadata()["shape"])
        found = opened.get_tensor("parameters")
    return Perceptron(layout["inputs"], tuple(layout["hidden"]), layout["activation"]), found


def _damaged(file: Path, what: str) -> ShardError:
    return ShardError(
        f"{file}: {what}; remove {file.parent} and fit again: its members are trained anew"
    )
