"""A scaling study: a callable measured at several numbers of ranks, point by point.

A point is one number of ranks in one repeat. It is *done* or *failed* once its ``point`` row is
written, which comes last, and *pending* before; the rows of a point that was cut short belong to
an attempt that no ``point`` row names, and are passed over. So a study that was killed goes on
where it was, and at any moment planned = done + failed + pending.

The folder is a run (`sml_kernel.records`); each time the study is taken up again adds a run of its
own below ``sessions``, with the commit, versions and host of that time. Rows:

============== ==================================================================================
``point``      ``ranks``, ``repeat``, ``attempt``, ``status``, ``reason``, ``seconds``
``step``       what one rank did in one step: see `Measurement`
``rank``       where a rank ran: ``host``, ``cores``, ``threads``, ``device``, …
``prediction`` from `sml_kernel.scaling.predict`, written before the first point
============== ==================================================================================
"""

from __future__ import annotations

import math
import os
import secrets
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tqdm.auto import tqdm

from sml_kernel import records
from sml_kernel.scaling.results import Study, StudyError

if TYPE_CHECKING:
    from sml_kernel.scaling.forecast import Prediction

MODES = ("strong", "weak")


class Measurement(Protocol):
    """What a study runs: called as ``run(ranks, mode)``, it gives rows, each a dict.

    A row of ``kind`` ``"step"`` holds ``rank``, ``step``, ``step_s`` (wall-clock seconds), any of
    the phases `summaries.PHASES` in seconds, any of the amounts of work `summaries.WORK`, and
    ``warm_up`` if the step is not to count. One of kind ``"rank"`` says where a rank ran
    (`flags.find` says what it looks at). In mode ``"strong"`` the work of a step is fixed, in
    ``"weak"`` it grows with the ranks. If it has an attribute ``parameters``, a dict, they are
    recorded, and have to be the same when the study is taken up again.
    """

    def __call__(self, ranks: int, mode: str, /) -> Iterable[Mapping[str, Any]]: ...


def study(
    run: Measurement,
    *,
    ranks: Sequence[int],
    mode: str = "strong",
    repeats: int = 3,
    folder: str | os.PathLike[str] | None = None,
    prediction: Prediction | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> Study:
    """Measure `run` at each number of ranks, or what is still to be measured in `folder`.

    Parameters
    ----------
    run
        See `Measurement`; for tracking, ``tracking.step_benchmark(graphs)``.
    ranks
        Numbers of ranks.
    mode
        ``"strong"``: the work of a step is fixed. ``"weak"``: it grows with the ranks.
    repeats
        Times each is measured, in turns: what drifts with time then spreads over all of them.
    folder
        A new folder, or that of a study with the same parameters: it goes on where it was.
    prediction
        From `sml_kernel.scaling.predict`: recorded before anything is measured.
    retry_failed
        Measure points again that failed before.
    progress
        Show a progress bar.

    Returns
    -------
    Study
        Also if points failed: they are recorded with their reason, and the others are measured.

    Raises
    ------
    StudyError, RecordError, HeldError
        Something that cannot be measured is asked for; the folder holds another study; another
        process is measuring there.
    """
    asked = _asked(run, ranks, mode, repeats)
    found = Study(records.open_or_start("scaling", asked, folder))
    states = ["pending", "failed"] if retry_failed else ["pending"]
    if not found.points().status.isin(states).any() and found.run.status() in ("done", "failed"):
        return found

    def failed() -> int:
        return int((found.points().status == "failed").sum())

    with records.under_way(found.run, "study", failed) as writer:
        if prediction is not None and found.predictions().empty:
            for row in prediction.rows():
                writer.append("prediction", **row)
        points = found.points()
        points = points[points.status.isin(states)]
        bar = tqdm(points.itertuples(), total=len(points), disable=not progress, unit="point")
        for point in bar:
            bar.set_description(f"{point.ranks} ranks, repeat {point.repeat}")
            _measure(run, point.ranks, point.repeat, mode, writer)
    return found


def _asked(run: Measurement, ranks: Sequence[int], mode: str, repeats: int) -> dict[str, Any]:
    if mode not in MODES:
        raise StudyError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
    if not ranks or min(ranks) < 1 or len(set(ranks)) < len(ranks) or repeats < 1:
        raise StudyError("ask for different numbers of ranks from 1 on, and for at least 1 repeat")
    of_run = dict(getattr(run, "parameters", {}))
    return {"ranks": list(ranks), "mode": mode, "repeats": repeats, "run": of_run}


def _measure(run: Measurement, ranks: int, repeat: int, mode: str, writer: records.Writer) -> None:
    """Measure one point; what goes wrong in it is its record, and not the end of the study."""
    point = {"ranks": ranks, "repeat": repeat, "attempt": secrets.token_hex(8)}
    begin = time.perf_counter()
    outcome = {"status": "done", "reason": "", "traceback": ""}
    try:
        rows = [dict(row) for row in run(ranks, mode)]
        _check(rows, ranks)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        outcome = {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}
        rows = []
    for row in rows:
        writer.append(row.pop("kind"), **point, **row)
    writer.append("point", **point, **outcome, seconds=time.perf_counter() - begin)


def _check(rows: list[dict[str, Any]], ranks: int) -> None:
    """A point is measured when each rank says what each step took, and not before."""
    steps = [row for row in rows if row["kind"] == "step" and not row.get("warm_up")]
    expected = {(rank, row["step"]) for rank in range(ranks) for row in steps}
    if not steps or {(row["rank"], row["step"]) for row in steps} != expected:
        raise StudyError(f"not every one of the {ranks} ranks gave a row for every step")
    if not all(math.isfinite(row["step_s"]) and row["step_s"] > 0 for row in steps):
        raise StudyError("a step took no time, or it is not known how much")
