"""What makes the figures of a study doubtful, found in its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

#: Relative standard deviation of repeats from which on they are called noisy.
NOISY = 0.05
#: Share of a core below which a rank of one thread is said to share it with somebody.
CONTENDED = 0.9


def find(
    ranks: pd.DataFrame,
    steps: pd.DataFrame,
    repeats: pd.DataFrame,
    sessions: Sequence[Mapping[str, Any]],
) -> pd.DataFrame:
    """All flags of a study: a row each with ``flag``, ``ranks`` (None: all) and ``detail``.

    Parameters
    ----------
    ranks
        Where each rank ran. Looked at are ``ranks, repeat, rank, host, device, cores`` (a list of
        core numbers that the rank may use), ``threads`` and ``launch_blocking`` (what
        ``CUDA_LAUNCH_BLOCKING`` was set to); what is missing cannot be judged: ``unknown``.
    steps
        Their steps; of ``cpu_s`` against the seconds of computing.
    repeats
        From `sml_kernel.scaling.summaries.repeats`.
    sessions
        Provenance of each time that the study was run.
    """
    found = [
        *_blocking(ranks),
        *_oversubscribed(ranks),
        *_contended(ranks, steps),
        *_noisy(repeats),
        *_mixed(sessions),
    ]
    return pd.DataFrame(found, columns=["flag", "ranks", "detail"])


def _blocking(ranks: pd.DataFrame) -> Iterator[tuple[str, int | None, str]]:
    if "launch_blocking" not in ranks:
        yield "unknown", None, "no record says whether CUDA_LAUNCH_BLOCKING was set"
        return
    text = ranks.launch_blocking.fillna("").astype(str)
    for n in ranks.ranks[~text.isin(["", "0"])].unique():
        yield (
            "launch_blocking",
            int(n),
            "CUDA_LAUNCH_BLOCKING is set: each kernel is waited for, and nothing overlaps",
        )


def _oversubscribed(ranks: pd.DataFrame) -> Iterator[tuple[str, int | None, str]]:
    if not {"host", "cores", "threads"} <= set(ranks):
        yield "unknown", None, "no record says how many cores and threads the ranks had"
        return
    seen = set()
    for (n, _, host), group in ranks.groupby(["ranks", "repeat", "host"]):
        threads = int(group.threads.sum())
        cores = len(set().union(*group.cores))
        if threads > cores and (n, host) not in seen:
            seen.add((n, host))
            yield "oversubscribed", int(n), f"{threads} threads share {cores} cores of {host}"


def _contended(ranks: pd.DataFrame, steps: pd.DataFrame) -> Iterator[tuple[str, int | None, str]]:
    """A rank of one thread that computes on a core of its own uses as much CPU as time goes by."""
    computing = ["data_s", "forward_s", "backward_s"]
    if not {"cpu_s", *computing} <= set(steps) or not {"device", "threads"} <= set(ranks):
        return
    single = ranks[(ranks.device == "cpu") & (ranks.threads == 1)]
    timed = steps.merge(single[["ranks", "repeat", "rank"]], on=["ranks", "repeat", "rank"])
    for n, rows in timed.groupby("ranks"):
        share = rows.cpu_s.sum() / rows[computing].to_numpy().sum()
        if share < CONTENDED:
            yield "contended", int(n), f"computing ranks had {share:.0%} of a core: others used it"


def _noisy(repeats: pd.DataFrame) -> Iterator[tuple[str, int | None, str]]:
    if repeats.empty:
        return
    for n, times in repeats.groupby("ranks").step_s:
        if len(times) < 2:
            yield "one_repeat", int(n), "one repeat has no spread to judge by: errors are nan"
        elif (spread := times.std() / times.mean()) > NOISY:
            yield "noisy", int(n), f"{len(times)} repeats scatter by {spread:.1%} (one sigma)"


def _mixed(sessions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int | None, str]]:
    for name in ("commit", "environment_hash", "host"):
        values = dict.fromkeys(str(session.get(name)) for session in sessions)
        if len(values) > 1:
            yield "mixed", None, f"taken up again with another {name}: {', '.join(values)}"
