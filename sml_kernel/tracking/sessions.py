"""A training's folder over all the times it is taken up: the first, and after each time it ended.

The same call with the same folder goes on where the training was, as a scaling study does. Every
time but the first has a run of its own below ``sessions``, with the commit, versions and host of
that time. Rows of steps that will be taken again, because they were done after the checkpoint that
is gone on from, are moved from ``rows`` to ``superseded``: the rows of a run hold each step once.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sml_kernel import records
from sml_kernel.records.rows import lines

#: Parameters that may change from one time to the next, because no figure depends on them.
FREE = ("ranks",)


class TrainingError(ValueError):
    """A training that cannot be started or taken up again as asked."""


@dataclass(frozen=True)
class Session:
    """One time that a training is under way, and its hold on the folder.

    Attributes
    ----------
    run
        The training's record.
    own
        The record of this time, for the first the same.
    number
        0 for the first.
    hold
        On the folder: no other process trains there.
    """

    run: records.Run
    own: records.Run
    number: int
    hold: records.Hold

    @property
    def folders(self) -> list[Path]:
        """Of all records that end with this session."""
        return list(dict.fromkeys([self.run.folder.absolute(), self.own.folder.absolute()]))

    def finish(self, status: str, **values: Any) -> None:
        """Set the final status of all records, and let others have the folder."""
        for folder in self.folders:
            records.Run(folder).finish(status, **values)
        self.hold.release()


def begin(
    folder: str | os.PathLike[str] | None,
    parameters: Mapping[str, Any],
    *,
    seed: int,
    data_hash: str,
) -> Session | records.Run:
    """Take a folder for a training, a new one or that of the same training.

    Parameters
    ----------
    folder
        New, empty, or of a training with the same parameters but for `FREE`. None: a new one.
    parameters, seed, data_hash
        See `sml_kernel.records.start`.

    Returns
    -------
    Session or Run
        The record itself if that training is done: there is nothing to take up.

    Raises
    ------
    TrainingError
        The folder holds another training or another kind of run, or one that is under way.
    """
    if folder is None or not (Path(folder) / "run.json").exists():
        run = records.start(
            folder, kind="train", parameters=parameters, seed=seed, data_hash=data_hash
        )
        return Session(run, run, 0, _hold(run.folder))
    run = records.Run(Path(folder))
    _compare(run, {**parameters, "graphs": data_hash})
    hold = _hold(run.folder)
    if run.status() == "done":  # asked behind the lock: the one before may just have finished
        hold.release()
        return run
    own = run.go_on(parameters)
    return Session(run, own, int(own.folder.name), hold)


def _hold(folder: Path) -> records.Hold:
    try:
        return records.Hold(folder)
    except records.HeldError:
        raise TrainingError(
            f"the training in {folder} is under way: wait for it, or stop it, to take it up"
        ) from None


def supersede(run: records.Run, step: int) -> int:
    """Move rows of `step` and later steps out of the record; returns how many there were.

    Only for who holds the folder: no rank writes.
    """
    moved = 0
    for path in sorted((run.folder / "rows").glob("*.jsonl")):
        rows = list(lines(path))
        late = [row for row in rows if row.get("step", -1) >= step]
        if not late:
            continue
        kept = [row for row in rows if row.get("step", -1) < step]
        aside = run.folder / "superseded" / f"{path.stem}-{secrets.token_hex(4)}.jsonl"
        _write(aside, late)  # first: whoever dies in between has them twice, and not lost
        _write(path, kept)
        moved += len(late)
    return moved


def _compare(run: records.Run, asked: Mapping[str, Any]) -> None:
    made = run.provenance()
    if made["kind"] != "train":
        raise TrainingError(f"{run.folder} holds a run of kind {made['kind']!r}, not a training")
    there = {**made["parameters"], "graphs": made["data_hash"]}
    asked = json.loads(json.dumps(asked))  # as it is read again
    names = [name for name in {**there, **asked} if name not in FREE]
    differing = [name for name in names if there.get(name) != asked.get(name)]
    if differing:
        told = ", ".join(f"{name} = {_short(there.get(name))}" for name in differing)
        wanted = ", ".join(f"{name} = {_short(asked.get(name))}" for name in differing)
        raise TrainingError(
            f"{run.folder} holds a training with {told}, and you ask for {wanted}: choose another "
            "folder, or ask for the same to go on with it"
        )


def _short(value: Any) -> str:
    """A value in an error: of a hash the beginning is enough."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}…'"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a file of rows at once."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    partial.replace(path)
