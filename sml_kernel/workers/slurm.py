"""Slurm's own commands: the only place that runs sbatch, squeue, sacct and scancel.

Everything is asked in batches: one squeue, or one sacct, for all jobs of a launch.
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass

#: States after which a job does not run again. A job that is COMPLETING has already ended.
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "COMPLETING",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
#: Slurm's commands wait for a controller that is down; nobody should wait with them.
TIMEOUT_S = 60

_QUEUE = "%i|%j|%T|%r|%S|%D|%N|%L|%a|%q|%k"  # the comment last: it may hold any character
_HISTORY = "JobID,JobName,State,ExitCode,ElapsedRaw,AllocNodes,Account,QOS"


class SlurmError(RuntimeError):
    """Slurm refused or did not answer; the message ends in Slurm's own words."""


@dataclass(frozen=True)
class Queued:
    """A job as squeue tells it.

    Attributes
    ----------
    job_id, name, state, account, qos, comment
        Slurm's own words; `state` in full (``PENDING``).
    reason
        Why it is pending, or how it ended; empty where Slurm says ``None``.
    expected_start
        Start, or the start that Slurm expects, local time; None where it does not say.
    nodes, node_list
        How many nodes, and which, once it has them.
    time_left_s
        Seconds of wall time left; None where Slurm does not say.
    """

    job_id: str
    name: str
    state: str
    reason: str
    expected_start: datetime.datetime | None
    nodes: int
    node_list: str
    time_left_s: int | None
    account: str
    qos: str
    comment: str

    @property
    def ended(self) -> bool:
        """It does not run again."""
        return self.state in ENDED


@dataclass(frozen=True)
class Accounted:
    """A job as sacct tells it. `cause` is the state with its detail (``CANCELLED by 1000``)."""

    job_id: str
    name: str
    cause: str
    exit_code: str
    elapsed_s: int
    nodes: int
    account: str
    qos: str

    @property
    def ended(self) -> bool:
        """It does not run again."""
        return self.cause.split()[0] in ENDED


class Queue:
    """The queue's answer about jobs of one name, asked at most every `poll_s` seconds.

    Any number of threads may look; all share one squeue.
    """

    def __init__(self, name: str, poll_s: float) -> None:
        self.name = name
        self.poll_s = poll_s
        self.asked = 0.0  # monotonic time of the question that gave the last answer
        self._jobs: list[Queued] = []
        self._lock = threading.Lock()

    def jobs(self, *, newer_than: float = 0.0) -> list[Queued]:
        """Jobs that run, wait, or ended a short while ago.

        Parameters
        ----------
        newer_than
            Monotonic time that the answer must be younger than, even if that asks Slurm again.
        """
        with self._lock:
            now = time.monotonic()
            if now - self.asked >= self.poll_s or self.asked <= newer_than:
                self._jobs = queue(self.name)
                self.asked = now
            return self._jobs


def here() -> bool:
    """Whether this machine has Slurm's commands."""
    return shutil.which("squeue") is not None


def submit(text: str) -> str:
    """Send a batch script; the id of its job.

    What counts is the script: options in this process's environment (``SBATCH_…``) and the traces
    of a job that it may itself run in (``SLURM_…``) are not passed on.

    Raises
    ------
    SlurmError
        Refused, in Slurm's words.
    """
    return _run(["sbatch", "--parsable"], text).strip().partition(";")[0]


def queue(name: str | None = None) -> list[Queued]:
    """This user's jobs of that name, or all: one squeue.

    Raises
    ------
    SlurmError
        Slurm does not answer.
    """
    command = ["squeue", "--me", "--noheader", "--states=all", f"--format={_QUEUE}"]
    text = _run(command if name is None else [*command, f"--name={name}"])
    return [_queued(line) for line in text.splitlines() if line]


def history(name: str) -> list[Accounted]:
    """This user's jobs of that name in the accounting of the last 30 days: one sacct.

    Raises
    ------
    SlurmError
        There is no accounting, or it does not answer.
    """
    since = (datetime.datetime.now() - datetime.timedelta(days=30)).strftime("%Y-%m-%d")
    command = ["sacct", "-X", "-P", "-n", f"--name={name}", f"--starttime={since}"]
    rows = [line.split("|") for line in _run([*command, f"--format={_HISTORY}"]).splitlines()]
    return [
        Accounted(row[0], row[1], row[2], row[3], int(row[4] or 0), int(row[5] or 0), *row[6:])
        for row in rows
    ]


def cancel(*, name: str | None = None, ids: tuple[str, ...] = ()) -> None:
    """Cancel this user's jobs of that name, or by their ids. Those that have ended do not matter.

    Raises
    ------
    SlurmError
        Slurm does not answer.
    """
    if name is None and not ids:
        return
    which = [f"--name={name}"] if name is not None else list(ids)
    _run(["scancel", "--quiet", "--me", *which])


def _run(command: list[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=_environment(),
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{command[0]} is not on this machine's PATH: is this a node with Slurm? "
            "(`sml.site('laptop')` needs none)"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} gave no answer within {TIMEOUT_S} s") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise SlurmError(f"Slurm's {command[0]} says: {said}")
    return done.stdout


def _environment() -> dict[str, str]:
    kept = {"SLURM_CONF"}
    options = ("SBATCH_", "SLURM_", "SLURMD_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith(options)
    }
    return environment | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C.UTF-8"}


def _queued(line: str) -> Queued:
    job_id, name, state, reason, start, nodes, node_list, left, account, qos, comment = line.split(
        "|", 10
    )
    return Queued(
        job_id=job_id,
        name=name,
        state=state,
        reason="" if reason == "None" else reason,
        expected_start=_moment(start),
        nodes=int(nodes),
        node_list=node_list,
        time_left_s=_left_s(left),
        account=account,
        qos=qos,
        comment=comment,
    )


def _moment(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:  # Slurm writes N/A where it does not know
        return None


def _left_s(text: str) -> int | None:
    """Seconds of Slurm's ``[D-][HH:]MM:SS``; None for words such as UNLIMITED or INVALID."""
    days, _, clock = text.rpartition("-")
    try:
        parts = [int(part) for part in clock.split(":")]
        total_s = int(days or 0) * 86400
    except ValueError:
        return None
    for part, unit_s in zip(reversed(parts), (1, 60, 3600), strict=False):
        total_s += part * unit_s
    return total_s
