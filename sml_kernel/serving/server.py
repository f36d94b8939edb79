"""`start`: models served on this machine, checked against themselves before they are used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any

from sml_kernel import records
from sml_kernel.serving import checks, repository
from sml_kernel.serving.client import Service
from sml_kernel.serving.connecting import opened
from sml_kernel.serving.conversion import as_servable
from sml_kernel.serving.errors import ServableError
from sml_kernel.serving.install import install_triton
from sml_kernel.serving.local import LocalServer
from sml_kernel.serving.repository import Deployment
from sml_kernel.serving.servable import Servable


def start(
    models: Mapping[str, Any],
    *,
    examples: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
    instances: int = 1,
    max_batch: int = 1024,
    max_joined: int = 16,
    queue_delay_us: int = 200,
    preferred_batch: Sequence[int] = (),
    warmup: bool = True,
    tolerance: float = 1e-5,
    timeout_s: float = 120.0,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Service:
    """Serve models by a real Triton beside this process.

    Parameters
    ----------
    models
        By the names that requests will use: modules, or what has ``servable(name)``.
    examples
        Of each plain `torch.nn.Module` an input, [n, …] with the batch first, by the same names.
    folder
        The run folder: records, log, repository. It is new or empty; None makes one below
        ``runs``.
    instances, max_batch, max_joined, queue_delay_us, preferred_batch, warmup
        How each model runs: see `serving.repository.Deployment`.
    tolerance
        Largest difference between served and direct answers, relative to the largest answer.
    timeout_s
        Longest until all models are ready; afterwards the longest that an answer may take.
    cache
        Where Triton is installed on first use; None is ``~/.cache/sml-kernel``.
    progress
        Show a bar of the models that are ready.

    Returns
    -------
    Service
        Close it, or use it in a ``with``. The server ends with it, and with this process.

    Raises
    ------
    ServableError
        A model cannot be served; nothing was started.
    InstallError
        There is no Triton for this machine.
    StartError
        The server or a model did not come up: its reason, with the end of the log.
    MismatchError
        A served model answers otherwise than called directly.
    """
    deployment = Deployment(
        instances,
        max_batch,
        queue_delay_us,
        tuple(preferred_batch),
        warmup,
        max_joined=max_joined,
    )
    made = _servables(models, examples or {})
    installed = install_triton(cache)
    asked = {"models": list(models), **asdict(deployment), "tolerance": tolerance}
    run = records.start(folder, kind="serving", parameters=asked)
    try:
        server = LocalServer(
            installed, run.folder, threads=_threads(len(made) * instances), timeout_s=timeout_s
        )
    except BaseException as error:
        run.finish("failed", error=repr(error))
        raise
    service = opened(server.discovery(), timeout_s=timeout_s, server=server)
    service.on_close(server.close)
    try:
        hashes = repository.write(run.folder / "repository", made, deployment)
        run.note(hashes=hashes, **asdict(server.place))
        _load(server, run, list(hashes), progress)
        _check(service, run, made, tolerance)
    except BaseException as error:
        service.close()
        run.finish("failed", error=repr(error))
        raise
    service.on_close(lambda: _finish(run, server))
    return service


def _servables(models: Mapping[str, Any], examples: Mapping[str, Any]) -> list[Servable]:
    unknown = sorted(set(examples) - set(models))
    if unknown or not models:
        raise ServableError(f"examples of {unknown}, but models are {list(models) or 'none'}")
    return [as_servable(name, model, examples.get(name)) for name, model in models.items()]


def _threads(processes: int) -> int | None:
    """Threads of each model's process: they share the cores, unless the environment says."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    return max(1, len(os.sched_getaffinity(0)) // processes)


def _load(server: LocalServer, run: records.Run, names: list[str], progress: bool) -> None:
    """Load all models at once; the first that fails raises when the others have ended too."""
    from tqdm.auto import tqdm

    with (
        ThreadPoolExecutor(len(names)) as pool,
        run.writer("server") as writer,
        tqdm(total=len(names), disable=not progress, unit="model") as bar,
    ):
        loading = {pool.submit(server.load, name): name for name in names}
        for done in as_completed(loading):
            writer.append("load", model=loading[done], load_s=done.result())
            bar.update()


def _check(service: Service, run: records.Run, made: Sequence[Servable], tolerance: float) -> None:
    with run.writer("check") as writer:
        for model in made:
            for transport in service.transports:
                found = checks.compare(service, model, transport, tolerance=tolerance)
                writer.append("check", **asdict(found))


def _finish(run: records.Run, server: LocalServer) -> None:
    """The run's end, said before the server's own, so that it tells who ended it."""
    if server.alive():
        run.finish("done")
    else:
        run.finish("failed", error="the server ended by itself; see logs/server.log")
