"""The command ``sml``: thin, and each command imports what it needs only when it is called."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sml_kernel.workers.leftovers import Launch

_DESCRIPTION = """\
Scalable machine learning for HEP: the same notebooks, unattended.

  sml doctor                               what works here, and what to do about the rest
  sml run notebooks/00_tour.ipynb          execute a notebook, with an honest exit code
  sml jobs                                 Slurm jobs that a killed notebook left behind
"""

_RUN = """\
Execute a notebook in this very Python, in the current directory, with a progress bar.

The names given by -p are checked against the notebook's parameters cell before anything runs.
The run folder gets the executed notebook (trusted: its figures show when it is opened), the same
as an HTML page that needs no network, and the record: run.json with the status, rows/ with the
duration of each cell. If the notebook has a parameter "folder" that -p does not set, it becomes
RUN FOLDER/results.
"""

_RUN_EXAMPLES = """\
examples:
  sml run notebooks/00_tour.ipynb
  sml run notebooks/02_train_gnn.ipynb -p epochs=20 -p site=laptop --folder runs/long
  sml run notebooks/02_train_gnn.ipynb -p 'ranks=[1, 2, 4]' --timeout 3600

exit codes:
    0  done: every cell was executed
    1  cell error: a cell raised
    2  refused before anything ran: notebook, parameter, value, or folder is of no use
    3  kernel killed: out of memory, kill -9
    4  runner error: the run itself failed, for instance on a full disk
  124  timeout: the run took longer than --timeout
  130  the runner received SIGINT (Ctrl-C, or Slurm's --signal=INT@60)
  143  the runner received SIGTERM
"""


_JOBS = """\
List the launches of workers that have jobs in Slurm, or TLS keys in a run folder, and say which of
them are left behind: their notebook is gone.
"""

_JOBS_EXAMPLES = """\
examples:
  sml jobs
  sml jobs --clean                           all that is left behind
  sml jobs --clean runs/workers-20260101-a   this one, of which you know that its notebook is dead:
                                             from another login node that cannot be seen
  sml jobs --clean sml-0badcafe              the same by the name of its jobs

exit codes:
    0  what was asked is done
    1  Slurm does not answer, or has jobs still in the queue
    2  no launch is called so, or its notebook lives
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; always ends in SystemExit, with the command's exit code."""
    given = _parser().parse_args(arguments)
    sys.exit(given.command(given))


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("sml", description=_DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    doctor = commands.add_parser(
        "doctor",
        help="what is installed, which site this is, what works here",
        description="Say what works here and what to do about the rest; "
        "exit code 1 if something essential is broken.",
    )
    doctor.set_defaults(command=_doctor)

    run = commands.add_parser(
        "run",
        help="execute a notebook unattended",
        description=_RUN,
        epilog=_RUN_EXAMPLES,
        formatter_class=raw,
    )
    run.add_argument("notebook", metavar="NOTEBOOK", type=Path)
    run.add_argument(
        "-p",
        dest="pairs",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set a parameter: 5, 0.1, true, None, [1, 2], or text; may be repeated",
    )
    run.add_argument("--folder", type=Path, help="run folder, new or empty; default: below runs/")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="of the whole run")
    run.add_argument("--no-progress", action="store_true", help="no progress bar")
    run.set_defaults(command=_run)

    jobs = commands.add_parser(
        "jobs",
        help="Slurm jobs that a killed notebook left behind",
        description=_JOBS,
        epilog=_JOBS_EXAMPLES,
        formatter_class=raw,
    )
    jobs.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where run folders lie (default: runs)"
    )
    jobs.add_argument(
        "--clean",
        metavar="FOLDER|NAME",
        nargs="*",
        help="cancel jobs and remove keys: of all that is left behind, or of those named",
    )
    jobs.set_defaults(command=_jobs)
    return parser


def _run(given: argparse.Namespace) -> int:
    from sml_kernel import batch, records

    try:
        result = batch.run(
            given.notebook,
            batch.parse(batch.parameters_of(given.notebook), given.pairs),
            folder=given.folder,
            timeout_s=given.timeout,
            progress=not given.no_progress,
        )
    except (batch.ParameterError, records.RecordError, OSError) as error:
        print(f"sml run: {error}", file=sys.stderr)
        return 2
    except batch.RunnerError as error:
        traceback.print_exception(error)  # not the notebook's fault: somebody has to look
        return batch.EXIT_CODES["runner error"]
    print(f"{result.status}{': ' if result.error else ''}{result.error}")
    print(f"  notebook  {result.notebook}\n  page      {result.html}\n  records   {result.folder}")
    if result.unsealed:
        print(f"sml run: not trusted, or no page: {result.unsealed}", file=sys.stderr)
    for headline in _headlines(result.folder):
        print(f"  headline  {headline}")
    return result.exit_code


def _headlines(folder: Path) -> list[str]:
    """The text of every record of kind ``headline`` in the run folders below `folder`."""
    from sml_kernel import records

    found = []
    for path in sorted(folder.glob("**/run.json")):
        rows = records.read(path.parent, "headline")
        found += list(rows["text"]) if "text" in rows else []
    return found


def _doctor(given: argparse.Namespace) -> int:
    from sml_kernel import doctor

    findings = doctor.report()
    print(doctor.as_text(findings))
    return int(not doctor.healthy(findings))


def _jobs(given: argparse.Namespace) -> int:
    from sml_kernel.workers import SlurmError, leftovers

    silent = False
    try:
        found = leftovers.find(given.runs)
    except SlurmError as error:
        print(f"sml jobs: {error}; only keys are looked for", file=sys.stderr)
        found, silent = leftovers.find(given.runs, ask_slurm=False), True
    for launch in found:
        print(_told(launch))
    if given.clean:
        return max(int(silent), _clean_named(found, given.clean))
    left = [launch for launch in found if launch.left]
    if not left:
        print("nothing is left behind" if not silent else "no keys are left behind")
    elif given.clean is None:
        print("sml jobs --clean cancels what is left behind and removes its keys")
    else:
        return max(int(silent), _clean(left))
    return int(silent)


def _told(launch: Launch) -> str:
    """A line on a launch: folder, name, jobs, and who looks after it."""
    jobs = ", ".join(f"{job.job_id} {job.state}" for job in launch.jobs)
    what = f"{launch.name}: {jobs}" if jobs else "no job seen, keys only"
    if launch.left:
        owner = "left behind"
    elif launch.status == "unknown":
        owner = "its run folder is gone: name it to clean it"
    elif launch.alive:
        owner = "its notebook lives"
    else:
        owner = f"its notebook ran on {launch.host}: if that is dead, name it to clean it"
    return f"{launch.folder}: {what} ({owner})"


def _clean_named(found: list[Launch], names: list[str]) -> int:
    """Clean the launches of these folders or names, all or none; an exit code."""
    chosen = []
    for name in names:
        called = [launch for launch in found if launch.called(name)]
        if not called:
            print(f"sml jobs: no launch listed here is called {name}", file=sys.stderr)
            return 2
        if called[0].alive:
            print(f"sml jobs: the notebook of {name} lives: close its workers", file=sys.stderr)
            return 2
        chosen += called
    return _clean(chosen)


def _clean(launches: list[Launch]) -> int:
    from sml_kernel.workers import leftovers

    remain = leftovers.clean(launches)
    print(f"cleaned {len(launches) - len(remain)} of {len(launches)}")
    return int(bool(remain))


if __name__ == "__main__":
    main()
