"""Workers as processes of this machine: the local twin of `sml_kernel.workers.jobs`."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any, final

from sml_kernel.records import Run
from sml_kernel.workers import allocator, script
from sml_kernel.workers.limits import check
from sml_kernel.workers.request import Request, Shape, visible_gpus
from sml_kernel.workers.table import COLUMNS, table

if TYPE_CHECKING:
    import pandas as pd
    from distributed import LocalCluster, Nanny


@final
class LocalWorkers:
    """Processes of this machine, one a GPU and pinned to it, or one a core asked for."""

    def __init__(self, asked: Request, run: Run, *, encrypt: bool) -> None:
        from distributed import LocalCluster
        from distributed.security import Security

        self.asked = asked
        self.run = run
        self._started = time.monotonic()
        self.cluster: LocalCluster = LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            # other users of this machine reach loopback too: keys, that only our processes have
            security=Security.temporary() if encrypt else None,
            protocol="tls://" if encrypt else "tcp://",
        )
        self.given_up: list[Any] = []
        self._gpus = visible_gpus() if asked.gpus else []

    def scale(self, workers: int) -> None:
        """Have so many workers; the last ones go first, and all share this machine's memory.

        Raises
        ------
        RequestError
            More workers with a GPU than GPUs.
        """
        check(self.asked, [Shape(1, workers)])
        self.cluster.sync(self._scale, workers)

    async def _scale(self, workers: int) -> None:
        from distributed.protocol.pickle import dumps

        held = self.cluster.worker_spec
        gone = [name for name in held if name >= workers]
        for name in gone:
            del held[name]
        limit = int((self.asked.node.memory_gib or 1) * 2**30 / max(workers, 1))
        for name in range(workers):
            held.setdefault(name, self._spec(name, limit))
        await self.cluster
        for nanny in self.cluster.workers.values():  # it restarts its worker with what it has
            nanny.memory_manager.memory_limit = limit
        await self.cluster.scheduler.broadcast(
            msg={"op": "run", "function": dumps(_limit_memory), "args": dumps((limit,))},
            on_error="ignore",  # one that dies now comes back with its nanny's new limit
        )

    def _spec(self, name: int, limit: int) -> dict[str, Any]:
        spec = self.cluster.new_spec
        threads = os.environ.get("OMP_NUM_THREADS", str(self.asked.cores_per_worker))
        environment = {"OMP_NUM_THREADS": threads}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[name]
        options = spec["options"] | {"memory_limit": limit}
        return {"cls": _nanny, "options": options | {"env": environment}}

    def jobs(self) -> pd.DataFrame:
        """A row a worker, in the columns of Slurm's jobs."""
        rows = []
        for name, nanny in sorted(dict(self.cluster.workers).items()):
            row = dict.fromkeys(COLUMNS)
            row |= {"job_id": str(nanny.pid), "name": str(name), "reason": "", "nodes": 1}
            connected = nanny.worker_address in self.cluster.scheduler.workers
            state = "RUNNING" if connected else "PENDING"
            rows.append(
                row | {"state": state, "node_list": socket.gethostname(), "workers": int(connected)}
            )
        return table(rows)

    def logs(self) -> dict[str, str]:
        """Dask's log of each worker, by its name. What tasks print is not in it."""
        workers = self.cluster.sync(self.cluster.scheduler.broadcast, msg={"op": "get_logs"})
        names = {address: state.name for address, state in self.cluster.scheduler.workers.items()}
        return {
            str(names.get(address, address)): "\n".join(line for _, line in lines)
            for address, lines in workers.items()
        }

    def job_script(self) -> str:
        """A line that says that there is none."""
        return script.local(self.asked)

    def close(self) -> None:
        """End the processes, and record how long they were held: nobody is charged."""
        self.cluster.close()
        with self.run.writer("workers") as writer:
            writer.append(
                "usage",
                account=None,
                qos=None,
                nodes=1,
                elapsed_s=time.monotonic() - self._started,
                node_hours=0.0,
            )


def _limit_memory(limit: int, dask_worker: Any) -> None:
    """On a worker: the bytes above which it spills, pauses, and is restarted by its nanny."""
    dask_worker.memory_manager.memory_limit = limit


def _nanny(*address: str, **options: Any) -> Nanny:
    """One that starts its worker with the allocator of `allocator`, which only starting can set."""
    import dask
    from distributed import Nanny

    name = "distributed.nanny.pre-spawn-environ"
    with dask.config.set({name: dask.config.get(name) | allocator.WORKER}):
        return Nanny(*address, **options)
