"""Servers watched while they work: `watch` reads their metrics every so often, into a record."""

from __future__ import annotations

import importlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sml_kernel import records
from sml_kernel.serving.discovery import Place
from sml_kernel.serving.errors import ServerGoneError
from sml_kernel.serving.metrics import Reading, places, rates, read

if TYPE_CHECKING:
    from sml_kernel.serving.client import Service

KIND = "metrics"


@final
class Watch:
    """Readings every so often, by a thread, until it or the service is closed.

    A context manager; `watch` gives one.

    Attributes
    ----------
    run
        Its record: rows ``metrics`` (a model, see `rates`), ``device`` (a GPU or the host, see
        `Device`) and ``gone`` (a server that did not answer, and why).
    """

    def __init__(self, service: Service, run: records.Run, *, every_s: float, own: bool) -> None:
        self.run = run
        self._places, self._every_s, self._own = places(service), every_s, own
        self._end = threading.Event()
        self._closed = threading.Lock()
        self._error = ""
        self._thread = threading.Thread(target=self._go, name="watch", daemon=True)
        self._thread.start()
        service.on_close(self._stop)

    def _go(self) -> None:
        before: dict[str, Reading] = {}
        try:
            with self.run.writer("watch") as writer:
                while True:
                    for place in self._places:
                        self._look(place, before, writer)
                    if self._end.wait(self._every_s):
                        return
        except Exception as error:  # such as a full disk: `close` tells it
            self._error = f"{type(error).__name__}: {error}"

    def _look(self, place: Place, before: dict[str, Reading], writer: records.Writer) -> None:
        try:
            now = read(place, timeout_s=max(self._every_s, 1.0))
        except ServerGoneError as error:
            before.pop(place.server_id, None)
            writer.append("gone", server=place.server_id, reason=str(error))
            return
        if place.server_id in before:
            for row in rates(before[place.server_id], now):
                writer.append(KIND, **row)
        for name, device in {"host": now.host, **now.gpus}.items():
            writer.append("device", server=now.server_id, device=name, **vars(device))
        before[place.server_id] = now

    def plot(self) -> Any:
        """Its figures, `sml_kernel.plots.activity`, named by a string as it is a layer above."""
        return importlib.import_module("sml_kernel.plots").activity(self.run)

    def close(self) -> None:
        """End it; again is harmless.

        Raises
        ------
        RuntimeError
            It had ended by itself, as it could not write.
        """
        self._stop()
        error, self._error = self._error, ""
        if error:
            raise RuntimeError(f"the watch ended before it was closed: {error}")

    def _stop(self) -> None:
        """Of a service that is closed: an error must not keep its server from being ended."""
        self._end.set()
        self._thread.join()
        with self._closed:
            own, self._own = self._own, False
        if own:
            self.run.finish("failed" if self._error else "done", error=self._error)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def watch(
    service: Service, *, every_s: float = 1.0, folder: str | os.PathLike[str] | None = None
) -> Watch:
    """Record what the servers of a service say of themselves, from now on.

    Parameters
    ----------
    service
        From `serving.start`, or from `serving.connect` by a run folder.
    every_s
        Seconds between two readings.
    folder
        A run folder that exists, whose record is added to, or a new one. None: that of the server
        if this process started it, else a new one below ``runs``.

    Raises
    ------
    ValueError
        It is not known where the servers tell their metrics.
    """
    servers = [place.server_id for place in places(service)]
    if folder is None and service.server is not None:
        folder = service.server.folder
    if folder is not None and (Path(folder) / "run.json").exists():
        return Watch(service, records.Run(Path(folder)), every_s=every_s, own=False)
    asked = {"every_s": every_s, "servers": servers}
    run = records.start(folder, kind=KIND, parameters=asked)
    return Watch(service, run, every_s=every_s, own=True)
