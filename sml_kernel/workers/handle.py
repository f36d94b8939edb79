"""What `launch` gives: a handle that is the same for processes of this machine and for jobs."""

from __future__ import annotations

import atexit
import contextlib
import html
import math
import time
from typing import TYPE_CHECKING, final

from sml_kernel import records
from sml_kernel.workers.limits import whole
from sml_kernel.workers.request import Request
from sml_kernel.workers.slurm import SlurmError
from sml_kernel.workers.table import shown

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client
    from distributed.deploy.spec import SpecCluster

    from sml_kernel.workers.jobs import SlurmWorkers
    from sml_kernel.workers.local import LocalWorkers
    from sml_kernel.workers.respawn import Loss


class WorkersError(RuntimeError):
    """Workers that were asked for do not come; the message says why, and what their job wrote."""


@final
class Workers:
    """Workers that run or are on their way. Made by `launch`; a context manager.

    Attributes
    ----------
    client, cluster
        Dask's own: ``client.submit``, ``cluster.dashboard_link``, …
    request
        What was asked, with its defaults filled in.
    run
        The records: rows ``job``, ``loss``, ``usage`` (see ``docs/workers.md``).
    """

    client: Client
    cluster: SpecCluster

    def __init__(self, asked: Request, run: records.Run, retries: int, tls: bool) -> None:
        from distributed import Client

        self.request = asked
        self.run = run
        self._wanted = asked.workers
        self._closed = False
        with contextlib.ExitStack() as undo:
            undo.push(self._failed)
            self._backend = _backend(asked, run, retries, tls)
            undo.callback(self._backend.close)
            self.cluster = self._backend.cluster
            self._backend.scale(asked.workers)
            self.client = Client(self.cluster)
            # an interpreter that ends in peace closes by itself; one that is killed has a watchdog
            atexit.register(self._close, "stopped")
            undo.pop_all()

    def jobs(self) -> pd.DataFrame:
        """A row a job (on this machine, a worker): id, state, pending reason, expected start, …

        The columns are `sml_kernel.workers.table.COLUMNS`. Slurm is asked at most every
        ``site.poll_s`` seconds, however often this is called.

        Raises
        ------
        SlurmError
            Slurm does not answer.
        """
        return self._backend.jobs()

    def logs(self) -> dict[str, str]:
        """What each job wrote, by its id, also of jobs that never connected or have ended."""
        return self._backend.logs()

    def job_script(self) -> str:
        """Exactly what was sent; jobs that are alike are shown once."""
        return self._backend.job_script()

    def scale(self, workers: int) -> None:
        """Have so many workers (GPUs, or cores where cores were asked for) in all.

        Jobs are whole: one that has more workers than are still wanted is ended after a smaller
        one was accepted in its place. So for a moment both count towards the jobs that a QOS
        allows at a time: where it has no room for both, scale to fewer whole jobs first. Results
        move to workers that are connected then; where there are none they are computed again.

        Raises
        ------
        RequestError, SlurmError
            As for `launch`; what was held before is held still.
        """
        workers = whole("workers", workers, 0)
        self._open()
        self._backend.scale(workers)
        self._wanted = workers

    def wait(self, workers: int | None = None, timeout_s: float | None = None) -> None:
        """Wait until so many workers are connected; None: all that were last asked for.

        Raises
        ------
        WorkersError
            More than were asked for, and no time limit; or a job is lost and its retries are
            spent: says why, with the end of its log.
        TimeoutError
            Not in time; says what the jobs are waiting for.
        """
        wanted = self._wanted if workers is None else whole("workers", workers, 0)
        if wanted > self._wanted and timeout_s is None:
            raise WorkersError(
                f"{wanted} workers never come: {self._wanted} were asked for (see `scale`)"
            )
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while (connected := self._connected()) < wanted:
            self._open()
            if self._backend.given_up:
                raise WorkersError(self._why(self._backend.given_up[-1]))
            if time.monotonic() > end:
                table = shown(self.jobs()).to_string(index=False)
                raise TimeoutError(f"{connected} of {wanted} workers after {timeout_s} s:\n{table}")
            time.sleep(0.05)

    def close(self) -> None:
        """End everything that was started; again does nothing."""
        self._close("done")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(
            "done" if kind is None else "stopped" if kind is KeyboardInterrupt else "failed"
        )

    def _close(self, status: str) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close)
        try:
            try:
                self.client.close()
            finally:
                self._backend.close()
        except BaseException as error:
            self.run.finish("failed", error=f"closing: {error}")
            raise
        self.run.finish(status)

    def _failed(self, kind: object, error: BaseException | None, _: object) -> None:
        self.run.finish("failed", error=f"{type(error).__name__}: {error}")

    def _open(self) -> None:
        if self._closed:
            raise WorkersError("these workers are closed: launch new ones")

    def _connected(self) -> int:
        return 0 if self._closed else len(self.cluster.scheduler.workers)

    def _why(self, loss: Loss) -> str:
        log = self.logs().get(loss.job_id, "").strip().splitlines()[-20:]
        return f"job {loss.job_id} ended ({loss.cause}) and is not replaced: {loss.why_not}\n" + (
            "\n".join(log) or "it wrote nothing"
        )

    def _title(self) -> str:
        where = ", ".join(filter(None, (self.request.node_type, self.request.qos)))
        state = "closed" if self._closed else f"{self._connected()} connected"
        return (
            f"Workers on {self.request.site.name} ({where}): {state}, "
            f"{self._wanted} {self.request.what} asked for; records in {self.run.folder}"
        )

    def _table(self) -> pd.DataFrame | str:
        """For display, which must not fail: the table, or why there is none."""
        try:
            return shown(self.jobs())
        except SlurmError as error:
            return str(error)

    def __repr__(self) -> str:
        if self._closed:
            return self._title()
        rows = self._table()
        return f"{self._title()}\n{rows if isinstance(rows, str) else rows.to_string(index=False)}"

    def _repr_html_(self) -> str:
        title = f"<p>{html.escape(self._title())}</p>"
        if self._closed:
            return title
        rows = self._table()
        if isinstance(rows, str):
            return f"{title}<p>{html.escape(rows)}</p>"
        return title + rows.to_html(index=False, border=0)


def _backend(
    asked: Request, run: records.Run, retries: int, tls: bool
) -> LocalWorkers | SlurmWorkers:
    if asked.site.scheduler == "local":
        from sml_kernel.workers.local import LocalWorkers

        return LocalWorkers(asked, run, encrypt=tls)
    from sml_kernel.workers.jobs import SlurmWorkers

    return SlurmWorkers(asked, run, retries=retries, encrypt=tls)
