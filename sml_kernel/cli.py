"""The command ``sml``: thin, and each command imports what it needs only when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
    2  refused before anything ran: no such notebook, parameter, value; folder not empty
    3  kernel killed: out of memory, kill -9
  124  timeout: the run took longer than --timeout
  130  the runner received SIGINT (Ctrl-C, or Slurm's --signal=INT@60)
  143  the runner received SIGTERM
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
        description="List the Slurm jobs whose notebook is gone.",
    )
    jobs.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where run folders lie (default: runs)"
    )
    jobs.add_argument("--clean", action="store_true", help="cancel them, and remove their keys")
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
    except (batch.ParameterError, records.RecordError, FileNotFoundError) as error:
        print(f"sml run: {error}", file=sys.stderr)
        return 2
    print(f"{result.status}{': ' if result.error else ''}{result.error}")
    print(f"  notebook  {result.notebook}\n  page      {result.html}\n  records   {result.folder}")
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
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = {True: "ok", False: "no", None: "--"}[finding.ok]
        print(f"{mark:>4}  {finding.name:<{width}}  {finding.text}")
        if finding.advice:
            print(f"{'':>4}  {'':<{width}}  → {finding.advice}")
    return int(any(finding.ok is False and finding.essential for finding in findings))


def _jobs(given: argparse.Namespace) -> int:
    from sml_kernel.workers import SlurmError, leftovers

    try:
        found = leftovers.find(given.runs)
    except SlurmError as error:
        print(f"sml jobs: {error}", file=sys.stderr)
        return 1
    for launch in found:
        jobs = ", ".join(f"{job.job_id} {job.state}" for job in launch.jobs) or "no job, keys only"
        owner = "left behind" if launch.left else f"notebook {launch.status} on {launch.host}"
        print(f"{launch.folder}: {jobs} ({owner})")
    left = [launch for launch in found if launch.left]
    if not left:
        print("nothing is left behind")
        return 0
    if not given.clean:
        print("sml jobs --clean cancels what is left behind and removes its keys")
        return 0
    remain = leftovers.clean(left)
    print(f"cleaned {len(left) - len(remain)} of {len(left)}")
    return int(bool(remain))


if __name__ == "__main__":
    main()
