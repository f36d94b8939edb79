"""A campaign: the members of a plan, trained stack by stack in a folder that says what is done.

The folder is a run (`sml_kernel.records`) with these files beside its rows::

    problem/     the events, as `stored.store` writes them
    plan.parquet a row a member, see `plan.table`
    shards/      a folder a finished stack, see `sml_kernel.sbi.campaign.shards`

All may be killed at any moment: a stack either has its shard or is trained again, and whether it
was interrupted can be seen in no number.
"""

from __future__ import annotations

import functools
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sml_kernel import records
from sml_kernel.sbi.campaign import plan, shards, stored
from sml_kernel.sbi.campaign.dispatch import each_done
from sml_kernel.sbi.campaign.folds import Folds
from sml_kernel.sbi.stack.members import Member, Recipe

if TYPE_CHECKING:
    import pandas as pd

    from sml_kernel.sbi.problems.problem import Problem
    from sml_kernel.workers import Workers


class CampaignError(RuntimeError):
    """Stacks that could not be trained; the message says why. Their members are pending."""


@dataclass(frozen=True)
class Progress:
    """planned = done + failed + pending, by the files."""

    planned: int
    done: int
    failed: int
    pending: int

    def __str__(self) -> str:
        parts = [f"{self.done:,} of {self.planned:,} members done"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.pending:,} pending"] if self.pending else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Campaign:
    """A folder with a plan. `prepare` makes one.

    Attributes
    ----------
    run
        Its record; `Recipe`, folds and learning rate are among the parameters.
    """

    run: records.Run

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def parameters(self) -> dict[str, Any]:
        return self.run.provenance()["parameters"]

    @property
    def recipe(self) -> Recipe:
        asked = self.parameters["recipe"]
        return Recipe(**{**asked, "hidden": tuple(asked["hidden"])})

    @property
    def folds(self) -> Folds:
        return Folds(**self.parameters["folds"])

    @property
    def events(self) -> stored.Stored:
        return stored.load(self.folder.absolute() / "problem", self.parameters["problem"])

    def plan(self) -> pd.DataFrame:
        """A row a member, as `plan.table` made it."""
        import pandas as pd

        return pd.read_parquet(self.folder / "plan.parquet")

    def members(self) -> pd.DataFrame:
        """The plan, with what became of each: `status` is done, failed or pending.

        Raises
        ------
        ShardError
            A damaged shard.
        """
        planned = self.plan()
        found = [
            shards.members(self.folder, number, rows["key"])
            for number, rows in planned.groupby("stack")
            if number in shards.there(self.folder)
        ]
        return _joined(planned, found)

    def progress(self) -> Progress:
        """What is done, by the files."""
        counts = self.members()["status"].value_counts()
        done, failed, pending = (int(counts.get(s, 0)) for s in ("done", "failed", "pending"))
        return Progress(done + failed + pending, done, failed, pending)


def prepare(
    problem: Problem,
    made: plan.Design,
    recipe: Recipe,
    folds: Folds,
    learning_rate: float,
    stack: int,
    folder: str | os.PathLike[str] | None,
) -> Campaign:
    """A folder with a plan: new, or one where the very same was begun.

    Raises
    ------
    RecordError
        The folder holds something else; names what differs.
    """
    definition = {
        "problem": stored.digest(problem),
        "recipe": vars(recipe) | {"hidden": list(recipe.hidden)},
        "folds": vars(folds),
        "learning_rate": learning_rate,
        "campaign": folds.campaign,
    }
    asked = definition | {"design": vars(made), "members": made.members, "stack": stack}
    run = records.open_or_start("ensemble", asked, folder)
    if not (run.folder / "plan.parquet").exists():  # new, or killed before it was complete
        run.note(data_hash=definition["problem"])
        shards.appear(run.folder / "problem", functools.partial(stored.store, problem))
        partial = run.folder / f".plan.{secrets.token_hex(8)}"
        plan.table(made, definition, stack).to_parquet(partial, index=False)
        partial.replace(run.folder / "plan.parquet")
    return Campaign(run)


def train(campaign: Campaign, workers: Workers | None, *, progress: bool = True) -> None:
    """Train what is missing.

    Raises
    ------
    CampaignError
        Stacks could not be trained; all others have been.
    HeldError
        Another process trains this campaign.
    """
    from tqdm.auto import tqdm

    planned = campaign.plan()
    sizes = planned.groupby("stack").size()
    missing = [int(number) for number in sizes.index if number not in shards.there(campaign.folder)]
    if not missing and campaign.run.status() in ("done", "failed"):
        return
    failures: dict[int, Exception] = {}
    with (
        records.under_way(campaign.run, "stacks") as writer,
        tqdm(total=int(sizes.sum()), disable=not progress, unit="member") as bar,
    ):
        shards.sweep(campaign.folder)
        bar.update(int(sizes.sum() - sizes[missing].sum()))
        work = functools.partial(train_stack, str(campaign.folder.absolute()))
        for number, result in each_done(work, missing, workers):
            if isinstance(result, Exception):
                failures[number] = result
                reason = f"{type(result).__name__}: {result}"
                writer.append("stack", stack=number, status="pending", reason=reason)
            else:
                writer.append("stack", stack=number, status="done", **result)
                bar.update(int(sizes[number]))
        if failures:
            raise CampaignError(_told(failures, campaign.progress()))


def train_stack(folder: str, number: int) -> dict[str, Any]:
    """Train a stack and store its shard; on a worker.

    Returns
    -------
    dict
        Members and failures, seconds by the clock and of CPU, host and process.
    """
    from sml_kernel.sbi.stack.training import train as train_members

    campaign = Campaign(records.Run(Path(folder)))
    rows = campaign.plan().query("stack == @number")
    first = rows.iloc[0]
    pair, folds, events = (first.numerator, first.reference), campaign.folds, campaign.events
    training, validation = (
        events.sample(pair, part) for part in folds.split(events.problem.event_ids, first.fold)
    )
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    members = [_member(row, campaign.parameters["learning_rate"]) for row in rows.itertuples()]
    trained = train_members(members, training, validation, campaign.recipe, campaign=folds.campaign)
    places = {member: place for place, member in enumerate(members)}
    ordered = sorted(trained, key=lambda each: places[each.member])
    kept = shards.write(campaign.folder, number, list(rows["key"]), ordered)
    return {
        "members": len(members),
        "failed": sum(each.failure is not None for each in ordered),
        "kept": kept,
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def _member(row: Any, learning_rate: float) -> Member:
    replica = None if row.replica < 0 else int(row.replica)
    return Member(int(row.seed), learning_rate, replica)


def _joined(planned: pd.DataFrame, found: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    if not found:
        return planned.assign(status="pending")
    rows = planned.merge(pd.concat(found), on="key", how="left", validate="one_to_one")
    status = rows["failure"].isna().map({True: "done", False: "failed"})
    return rows.assign(status=status.mask(rows["epochs"].isna(), "pending"))


def _told(failures: dict[int, Exception], state: Progress) -> str:
    causes: dict[str, list[int]] = {}
    for number, error in failures.items():
        causes.setdefault(f"{type(error).__name__}: {error}", []).append(number)
    lines = [
        f"{len(numbers)} stacks (the first is {min(numbers)}): {cause}"
        for cause, numbers in causes.items()
    ]
    return "\n".join([f"{state}. Fit again to train what is pending.", *lines])
