"""What launches left behind whose notebook is gone: jobs, TLS keys. The watchdog's reserve.

The watchdog cancels the jobs of a killed notebook, unless its machine died with it. Every job
carries the path of its run folder in Slurm's comment, and every run folder knows the process it
belongs to: from either, what was left is found and cleaned.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sml_kernel import records
from sml_kernel.workers import slurm, tls, watchdog

_COMMENT = "sml-kernel "


@dataclass(frozen=True)
class Launch:
    """A launch whose jobs or keys are still there.

    Attributes
    ----------
    folder
        Its run folder; it may have been removed.
    name
        Slurm's name of its jobs; empty when it has none left.
    status
        Of its run: ``running`` (its notebook lives, or lived on another host), ``lost`` (its
        notebook is gone), one of `sml_kernel.records.STATUSES`, or ``unknown`` without a run.
    host
        Where its notebook ran; empty if unknown.
    jobs
        Its jobs that run or wait.
    keys
        Its TLS keys lie in the folder still.
    """

    folder: Path
    name: str
    status: str
    host: str
    jobs: tuple[slurm.Queued, ...]
    keys: bool

    @property
    def left(self) -> bool:
        """Nobody looks after it any more: its notebook is known to be gone."""
        return self.status not in ("running", "unknown")


def find(folder: str | os.PathLike[str] = "runs") -> list[Launch]:
    """Launches of this user that have jobs in the queue, or keys in a run folder below `folder`.

    Asks Slurm once; a machine without Slurm has no jobs. Those whose notebook lives are among
    them: see `Launch.left`.

    Raises
    ------
    SlurmError
        There is a Slurm, but it does not answer.
    """
    jobs: dict[Path, list[slurm.Queued]] = {}
    for job in slurm.queue() if slurm.here() else []:
        if not job.ended and job.comment.startswith(_COMMENT):
            jobs.setdefault(Path(job.comment.removeprefix(_COMMENT)), []).append(job)
    for path in sorted(Path(folder).glob("*/tls")):
        jobs.setdefault(path.parent.resolve(), [])
    return [_launch(path, tuple(found)) for path, found in jobs.items()]


def clean(launches: list[Launch], *, patience_s: float = 60.0) -> list[Launch]:
    """Cancel jobs and remove keys of these launches, whether their notebook lives or not.

    Parameters
    ----------
    launches
        Of `find`; ``[one for one in find() if one.left]`` spares those that are looked after.
    patience_s
        Longest to wait for the jobs of one launch to leave the queue.

    Returns
    -------
    list of Launch
        Those whose jobs are still in the queue after that time.
    """
    remain = []
    for launch in launches:
        if launch.name and not watchdog.cancel_until_gone(launch.name, patience_s):
            remain.append(launch)
        tls.remove(launch.folder)
        if launch.status in ("running", "lost") and launch not in remain:
            error = "its notebook was gone; its jobs were cancelled as leftovers"
            records.Run(launch.folder).finish("stopped", error=error)
    return remain


def _launch(folder: Path, jobs: tuple[slurm.Queued, ...]) -> Launch:
    run = records.Run(folder)
    try:
        status, host = run.status(), str(run.provenance()["host"])
    except records.RecordError:  # the folder was removed under its jobs
        status, host = "unknown", ""
    name = jobs[0].name if jobs else ""
    return Launch(folder, name, status, host, jobs, (folder / "tls").is_dir())
