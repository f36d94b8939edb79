"""What launches left behind whose notebook is gone: jobs, TLS keys. The watchdog's reserve.

The watchdog cancels the jobs of a killed notebook, unless its machine died with it. Every job
carries the path of its run folder in Slurm's comment, and every run folder knows the process it
belongs to: from either, what was left is found and cleaned.
"""

from __future__ import annotations

import os
import socket
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
        notebook is gone), one of `sml_kernel.records.STATUSES`, or ``unknown`` without a run (its
        folder was removed).
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

    @property
    def alive(self) -> bool:
        """Its notebook is known to live: it is a process of this very host."""
        return self.status == "running" and self.host == socket.gethostname()

    def called(self, name: str | os.PathLike[str]) -> bool:
        """Whether `name` is its run folder, or the name of its jobs."""
        return self.folder == Path(name).resolve() or (self.name != "" and self.name == str(name))


def find(folder: str | os.PathLike[str] = "runs", *, ask_slurm: bool = True) -> list[Launch]:
    """Launches of this user that have jobs in the queue, or keys in a run folder below `folder`.

    Asks Slurm once; a machine without Slurm has no jobs. Those whose notebook lives are among
    them: see `Launch.left`.

    Parameters
    ----------
    folder
        Where run folders lie, at any depth.
    ask_slurm
        False: only keys are looked for.

    Raises
    ------
    SlurmError
        There is a Slurm, but it does not answer.
    """
    jobs: dict[Path, list[slurm.Queued]] = {}
    for job in slurm.queue() if ask_slurm and slurm.here() else []:
        if not job.ended and job.comment.startswith(_COMMENT):
            jobs.setdefault(Path(job.comment.removeprefix(_COMMENT)), []).append(job)
    for path in sorted(Path(folder).rglob("tls")):
        if _is_launch(path.parent):
            jobs.setdefault(path.parent.resolve(), [])
    return [_launch(path, tuple(found)) for path, found in jobs.items()]


def clean(launches: list[Launch], *, patience_s: float = 60.0) -> list[Launch]:
    """Cancel jobs and remove keys of these launches, whether their notebook lives or not.

    Parameters
    ----------
    launches
        Of `find`; ``[one for one in find() if one.left]`` spares those that may be looked after.
        One whose notebook died with another host is ``running`` for ever, as seen from here:
        whoever knows that it is dead names it.
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
            what = "jobs were cancelled" if launch.name else "keys were removed"
            error = f"its notebook was gone; its {what} as leftovers"
            records.Run(launch.folder).finish("stopped", error=error)
    return remain


def _is_launch(folder: Path) -> bool:
    """Whether it is the run folder of workers: other people's keys are nobody's business here."""
    try:
        return records.Run(folder).provenance().get("kind") == "workers"
    except records.RecordError:
        return False


def _launch(folder: Path, jobs: tuple[slurm.Queued, ...]) -> Launch:
    run = records.Run(folder)
    try:
        status, host = run.status(), str(run.provenance()["host"])
    except records.RecordError:  # the folder was removed under its jobs
        status, host = "unknown", ""
    name = jobs[0].name if jobs else ""
    return Launch(folder, name, status, host, jobs, (folder / "tls").is_dir())
