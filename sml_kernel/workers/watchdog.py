"""A small process that outlives a killed notebook and cancels its jobs.

Dask's own death-timeout does not do that: a worker that is busy does not notice, and a job that is
pending would still start. So each launch has a detached process that holds a descriptor of the
notebook's process (pidfd: no race with a reused process id) and, when that ends, runs scancel by
the launch's unique job name until Slurm knows no job of it, and removes the TLS keys.

It dies with the login node; `leftovers` then finds what it left.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from sml_kernel import records
from sml_kernel.workers import slurm, tls, usage

#: Longest that jobs are cancelled again and again before this gives up, and says so in the run.
PATIENCE_S = 900
_DISMISSED = b"closed"


class Watchdog:
    """The notebook's end of it: started before the first job is sent, dismissed after the last."""

    def __init__(self, name: str, folder: Path) -> None:
        notebook = os.pidfd_open(os.getpid())
        try:
            with (folder / "logs" / "watchdog.log").open("w") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", __name__, name, str(folder), str(notebook)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[notebook],
                    start_new_session=True,  # a Ctrl-C or a hang-up of the terminal is not for it
                    cwd="/",
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
        finally:
            os.close(notebook)

    def dismiss(self) -> None:
        """All jobs are gone: the process ends without doing anything."""
        if self.process.poll() is None:
            self.process.communicate(_DISMISSED)


def main(name: str, folder: str, notebook: int) -> None:
    """Wait for a word on stdin, or for the end of the notebook's process."""
    inputs = select.poll()
    inputs.register(notebook, select.POLLIN)
    inputs.register(0, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in inputs.poll()}
        if 0 in ready:
            if os.read(0, len(_DISMISSED)) == _DISMISSED:
                return
            inputs.unregister(0)  # closed without a word: only the process itself tells
        if notebook in ready:
            break
    run = records.Run(Path(folder))
    gone = cancel_until_gone(name)
    tls.remove(run.folder)
    with run.writer("watchdog") as writer:
        usage.append(writer, run, usage.ask(run, name))
    error = "the notebook's process ended without close(); "
    error += "its jobs are cancelled" if gone else f"jobs named {name} are still in the queue"
    run.finish("stopped" if gone else "failed", error=error)


def cancel_until_gone(name: str, patience_s: float = PATIENCE_S) -> bool:
    """Cancel jobs by their name until Slurm knows none that could run; False after `patience_s`.

    Asks once more after the queue is empty: an sbatch that was under way when the notebook died
    may come last.
    """
    end = time.monotonic() + patience_s
    pause_s, empty = 0.5, 0
    while time.monotonic() < end:
        try:
            slurm.cancel(name=name)
            empty = empty + 1 if all(job.ended for job in slurm.queue(name)) else 0
        except slurm.SlurmError as error:  # a controller that restarts: patience
            print(error, flush=True)
            empty = 0
        if empty == 2:
            return True
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 30.0)
    return False


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
