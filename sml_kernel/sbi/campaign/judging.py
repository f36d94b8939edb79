"""Members judged one by one on the fold that they never saw, stack by stack, on workers.

What was found is stored beside the shards (``judged/00012/figures.parquet``), once for each stack.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel import records
from sml_kernel.sbi.campaign import shards
from sml_kernel.sbi.campaign.campaign import Campaign
from sml_kernel.sbi.campaign.dispatch import all_done
from sml_kernel.sbi.problems import exact
from sml_kernel.sbi.scorecard import metrics

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from sml_kernel.sbi.campaign.folds import Folds
    from sml_kernel.sbi.campaign.stored import Stored
    from sml_kernel.sbi.stack.batches import Sample
    from sml_kernel.workers import Workers

_LOGITS = 1 << 23  # at a time: 32 MiB


def judge(campaign: Campaign, workers: Workers | None, *, progress: bool = True) -> pd.DataFrame:
    """The table of members with their figures on held-out events.

    Returns
    -------
    pandas.DataFrame
        `Campaign.members` with a column for each figure of `metrics.judge`; nan for members that
        failed or are pending.

    Raises
    ------
    PartError
        Members could not be judged.
    """
    import pandas as pd

    missing = sorted(shards.there(campaign.folder) - _judged(campaign.folder))
    work = functools.partial(judge_stack, str(campaign.folder.absolute()))
    for _ in all_done(work, missing, workers, "stack judged", progress):
        pass
    tables = [
        pd.read_parquet(_judged_path(campaign.folder, number) / "figures.parquet")
        for number in sorted(shards.there(campaign.folder))
    ]
    members = campaign.members()
    return members.merge(pd.concat(tables), on="key", how="left") if tables else members


def judge_stack(folder: str, number: int) -> None:
    """Judge the members of a stack and store what was found; on a worker."""
    import pandas as pd
    import torch

    from sml_kernel.sbi.stack.evaluation import logits

    campaign = Campaign(records.Run(Path(folder)))
    rows = campaign.plan().query("stack == @number")
    first, events = rows.iloc[0], campaign.events
    pair = (first.numerator, first.reference)
    done = shards.members(campaign.folder, number, rows["key"])
    shape, parameters = shards.parameters(campaign.folder, number, done)
    ids = events.problem.event_ids
    held_out = campaign.folds.of(ids) == first.fold
    training = events.sample(pair, campaign.folds.split(ids, first.fold)[0])
    held, found = _held(events, pair, held_out), []
    widened = inflation(campaign.folds, bootstrap=first.replica >= 0)
    for some in _blocks(len(parameters), max(len(held.x), len(training.x))):
        loss = _loss(logits(shape, parameters[some], training.x), training)
        said = logits(shape, parameters[some], torch.from_numpy(held.x)).numpy()
        judged = metrics.judge(said, held, training_loss=loss, inflation=widened)
        found.append(metrics.columns(judged, events.problem.feature_names))
    figures = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    table = pd.DataFrame({"key": rows["key"].to_numpy(), **figures})
    shards.appear(
        _judged_path(campaign.folder, number),
        lambda partial: table.to_parquet(partial / "figures.parquet", index=False),
    )


def _held(events: Stored, pair: tuple[str, str], part: np.ndarray) -> metrics.Held:
    found = events.sample(pair, part)
    rows = np.flatnonzero(part & np.isin(events.problem.labels, _numbers(events, pair)))
    return metrics.Held(
        found.x.numpy(),
        found.classes.numpy() == 1,
        found.weights.numpy(),
        log_exact(events, pair, rows),
    )


def _numbers(events: Stored, pair: tuple[str, str]) -> list[int]:
    return [events.problem.classes.index(name) for name in pair]


def inflation(folds: Folds, bootstrap: bool) -> float:
    """κ of `metrics.judge`: what the finite training sample adds to the variance of a figure.

    Held-out over training events, and as much again for a bootstrap replica: that of networks
    which follow every fluctuation they see, the most there can be.
    """
    trained = (folds.count - 1) * (1 - folds.validation)
    return (2 if bootstrap else 1) / trained


def log_exact(events: Stored, pair: tuple[str, str], rows: np.ndarray) -> np.ndarray | None:
    """Exact log ratios of some events of the problem, if they are known."""
    problem = events.problem
    if problem.exact is None:
        return None
    return exact.log_ratio(problem.exact, problem.features[rows], *pair)


def _loss(logits: Tensor, sample: Sample) -> np.ndarray:
    """[M] class-balanced binary cross-entropy of [M, N], without bootstrap weights."""
    import torch

    of_numerator = sample.classes == 1
    losses = torch.nn.functional.softplus(torch.where(of_numerator, -logits, logits))
    balanced = torch.empty_like(sample.weights)
    for each in (of_numerator, ~of_numerator):
        balanced[each] = sample.weights[each] / (2 * sample.weights[each].sum())
    return (losses.double() @ balanced).numpy()


def _judged_path(folder: Path, number: int) -> Path:
    return Path(folder) / "judged" / f"{number:05d}"


def _judged(folder: Path) -> set[int]:
    return {int(each.name) for each in (Path(folder) / "judged").glob("[0-9]*")}


def _blocks(members: int, events: int) -> Iterator[slice]:
    step = max(1, _LOGITS // max(events, 1))
    return (slice(start, start + step) for start in range(0, members, step))
