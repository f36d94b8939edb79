"""What the members of a campaign say of events together, without keeping what each of them says.

An ensemble's ratio of an event of the campaign is that of the members of its fold, which never saw
it; of any other event, that of all members. A worker goes through the members of a ratio, block by
block, for some events at a time, and gives back what they say in the mean.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sml_kernel import records
from sml_kernel.sbi.campaign import shards
from sml_kernel.sbi.campaign.campaign import Campaign
from sml_kernel.sbi.campaign.dispatch import all_done
from sml_kernel.sbi.scorecard.sums import COMBINATIONS, Sums

if TYPE_CHECKING:
    from sml_kernel.workers import Workers

_LOGITS = 1 << 23  # judged at a time: 32 MiB
_EVENTS = 1 << 16  # of a task at most
_CACHED_EVENTS = 1 << 12  # summed at a time: with a stack of 250 members 4 MiB of logits
_KEPT = 1 << 26  # ratios of a task, where a median needs all of them


class ScoringError(RuntimeError):
    """Members or events that could not be scored; the message says which, and why."""


@dataclass(frozen=True)
class Part:
    """Events that one task sums members over.

    Attributes
    ----------
    pair
        Of the members.
    fold
        Of members and of events of the campaign; None: all members, and events of a file.
    start, stop
        Among these events.
    file
        ``.npy`` with [N, D] features; None: the events of the campaign.
    how
        One of `sums.COMBINATIONS`.
    """

    pair: tuple[str, str]
    fold: int | None
    start: int
    stop: int
    file: str | None = None
    how: str = "arithmetic"


@dataclass(frozen=True, eq=False)
class Combined:
    """One ratio of many members, for each of N events.

    Attributes
    ----------
    ratio
        [N] p_numerator/p_reference.
    sigma
        [N] standard deviation over members: of the ratio, or of its logarithm where the combination
        is geometric; nan for a single member, and for the median.
    members
        [N] how many were combined: of the event's fold, or all.
    """

    ratio: np.ndarray
    sigma: np.ndarray
    members: np.ndarray


def out_of_fold(
    campaign: Campaign,
    pair: tuple[str, str],
    workers: Workers | None = None,
    *,
    how: str = "arithmetic",
    progress: bool = True,
) -> Combined:
    """The ensemble's ratio for all N events of the campaign, each by the members of its fold.

    What was found is kept in ``combined/`` until other members are done: the scorecard and every
    inference want it.

    Parameters
    ----------
    how
        One of `sums.COMBINATIONS`.

    Raises
    ------
    ScoringError
        Members could not be scored, or a fold has none.
    """
    folds = campaign.folds
    fold = folds.of(campaign.events.problem.event_ids)
    parts, rows = [], []
    for number in range(folds.count):
        of_fold = np.flatnonzero(fold == number)
        for part in _parts(campaign, pair, number, len(of_fold), None, how):
            parts.append(part)
            rows.append(of_fold[part.start : part.stop])
    kept = _kept(campaign, pair, how)
    if kept.exists():
        return Combined(**load_file(kept))
    found = _joined(campaign, parts, rows, workers, progress)
    kept.parent.mkdir(exist_ok=True)
    partial = kept.with_name(f".{kept.name}.{secrets.token_hex(8)}")
    save_file(vars(found), partial)
    partial.replace(kept)
    return found


def _kept(campaign: Campaign, pair: tuple[str, str], how: str) -> Path:
    """Where the ratios are kept: named by who is in them."""
    members = campaign.members()
    mine = (members.numerator == pair[0]) & (members.reference == pair[1])
    keys = members[mine & (members.status == "done")]["key"]
    name = hashlib.sha256(" ".join([how, *keys]).encode()).hexdigest()[:16]
    return campaign.folder / "combined" / f"{name}.safetensors"


def of_events(
    campaign: Campaign,
    pair: tuple[str, str],
    x: np.ndarray,
    workers: Workers | None = None,
    *,
    how: str = "arithmetic",
    progress: bool = True,
) -> Combined:
    """The ensemble's ratio for other events, [N, D] features, by all members."""
    with tempfile.TemporaryDirectory(prefix=".events-", dir=campaign.folder) as folder:
        file = str(Path(folder).absolute() / "features.npy")
        np.save(file, np.asarray(x, np.float32))
        parts = _parts(campaign, pair, None, len(x), file, how)
        rows = [np.arange(part.start, part.stop) for part in parts]
        return _joined(campaign, parts, rows, workers, progress)


def combine_part(folder: str, part: Part) -> Combined:
    """Combine members for some events, in the order of the plan; on a worker."""
    import torch

    from sml_kernel.sbi.stack.evaluation import logits

    campaign = Campaign(records.Run(Path(folder)))
    events = campaign.events
    if part.file is None:
        mine = campaign.folds.of(events.problem.event_ids) == part.fold
        features = events.problem.features[mine][part.start : part.stop]
    else:
        features = np.load(part.file, mmap_mode="r")[part.start : part.stop]
    chunks = torch.from_numpy(events.seen(features)).split(_CACHED_EVENTS)
    sums = [Sums(len(x), range(len(x)) if part.how == "median" else ()) for x in chunks]
    for shape, members in parameters(campaign, part):
        for x, each in zip(chunks, sums, strict=True):
            each.add(logits(shape, members, x).numpy())
    if not sums[0].members:
        where = "" if part.fold is None else f" of fold {part.fold}"
        raise ScoringError(f"no member{where} of {' / '.join(part.pair)} is done: fit it first")
    spread = part.how != "median" and sums[0].members > 1
    return Combined(
        np.concatenate([each.combine(part.how) for each in sums]),
        np.concatenate(
            [each.sigma(part.how) if spread else np.full(each.events, np.nan) for each in sums]
        ),
        np.concatenate([np.full(each.events, each.members) for each in sums]),
    )


def parameters(campaign: Campaign, part: Part) -> Iterator[tuple[Any, Any]]:
    """Shape and parameters of the members that are done, stack by stack."""
    plan = campaign.plan()
    mine = (plan.numerator == part.pair[0]) & (plan.reference == part.pair[1])
    if part.fold is not None:
        mine &= plan.fold == part.fold
    there = shards.there(campaign.folder)
    for number, rows in plan[mine].groupby("stack"):
        if number in there:
            table = shards.members(campaign.folder, number, rows["key"])
            shape, members = shards.parameters(campaign.folder, number, table)
            yield shape, members[np.flatnonzero(table["failure"].isna())]


def _parts(
    campaign: Campaign,
    pair: tuple[str, str],
    fold: int | None,
    events: int,
    file: str | None,
    how: str,
) -> list[Part]:
    if how not in COMBINATIONS:
        raise ScoringError(f"no combination {how!r}; there are {', '.join(COMBINATIONS)}")
    most = _EVENTS if how != "median" else max(1, _KEPT // len(campaign.plan()))
    edges = np.linspace(0, events, math.ceil(events / most) + 1).astype(int).tolist()
    return [Part(pair, fold, *edge, file, how) for edge in itertools.pairwise(edges)]


def _joined(
    campaign: Campaign,
    parts: list[Part],
    rows: list[np.ndarray],
    workers: Workers | None,
    progress: bool,
) -> Combined:
    events = sum(len(each) for each in rows)
    found = Combined(np.empty(events), np.empty(events), np.empty(events, np.int64))
    places = dict(zip(parts, rows, strict=True))
    work = functools.partial(combine_part, str(campaign.folder.absolute()))
    for part, combined in all_done(work, parts, workers, "part scored", progress):
        found.ratio[places[part]] = combined.ratio
        found.sigma[places[part]] = combined.sigma
        found.members[places[part]] = combined.members
    return found
