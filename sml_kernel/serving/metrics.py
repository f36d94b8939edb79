"""What servers say of themselves while they work: `read_metrics` once, `watch` as it goes.

Triton tells totals and gauges of each model, and of each GPU, as text for Prometheus. Two readings
make a rate.
"""

from __future__ import annotations

import http.client
import importlib
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sml_kernel import records
from sml_kernel.serving.discovery import Place
from sml_kernel.serving.errors import ServerGoneError
from sml_kernel.serving.statistics import Statistics

if TYPE_CHECKING:
    from sml_kernel.serving.client import Service

KIND = "metrics"
_LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
#: Triton's totals by the names of `Statistics`, and what makes them seconds.
_TOTALS = {
    "nv_inference_request_success": ("requests", 1.0),
    "nv_inference_request_failure": ("failed", 1.0),
    "nv_inference_count": ("inferences", 1.0),
    "nv_inference_exec_count": ("executions", 1.0),
    "nv_inference_request_duration_us": ("total_s", 1e-6),
    "nv_inference_queue_duration_us": ("queue_s", 1e-6),
    "nv_inference_compute_input_duration_us": ("compute_s", 1e-6),
    "nv_inference_compute_infer_duration_us": ("compute_s", 1e-6),
    "nv_inference_compute_output_duration_us": ("compute_s", 1e-6),
}
_PENDING = "nv_inference_pending_request_count"
_GPU = {
    "nv_gpu_utilization": "use",
    "nv_gpu_memory_used_bytes": "memory_used_bytes",
    "nv_gpu_memory_total_bytes": "memory_total_bytes",
}
_HOST = {
    "nv_cpu_utilization": "use",
    "nv_cpu_memory_used_bytes": "memory_used_bytes",
    "nv_cpu_memory_total_bytes": "memory_total_bytes",
}
_PARTS = tuple(each.name for each in fields(Statistics))  # four counts, then seconds
_NOTHING = Statistics(0, 0, 0, 0, 0.0, 0.0, 0.0)
_NAN = float("nan")


@dataclass(frozen=True)
class Device:
    """How busy a GPU, or the host's processors together, are: nan where a server does not say.

    Attributes
    ----------
    use
        Share of the time, from 0 to 1.
    memory_used_bytes, memory_total_bytes
        Of the GPU, or of the host.
    """

    use: float = _NAN
    memory_used_bytes: float = _NAN
    memory_total_bytes: float = _NAN


@dataclass(frozen=True)
class Reading:
    """One reading of one server.

    Attributes
    ----------
    server_id
        By which the server knows itself.
    at_s
        When, in seconds of a clock that only goes on.
    models
        Totals of each model since it was loaded, summed over its versions and GPUs.
    pending
        Requests of each model that wait now.
    gpus
        By their UUID; empty without one.
    host
        The machine.
    """

    server_id: str
    at_s: float
    models: dict[str, Statistics] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    gpus: dict[str, Device] = field(default_factory=dict)
    host: Device = Device()


def read_metrics(service: Service, *, timeout_s: float = 5.0) -> list[Reading]:
    """Read the metrics of each of a service's servers, over plain HTTP.

    Raises
    ------
    ValueError
        It is not known where they are.
    ServerGoneError
        A server does not answer.
    """
    return [_read(place, timeout_s) for place in _places(service)]


def _places(service: Service) -> Sequence[Place]:
    if not all(place.metrics for place in service.found.places):
        raise ValueError(
            f"it is not known where {service} tells its metrics: connect by its run folder"
        )
    return service.found.places


def _read(place: Place, timeout_s: float) -> Reading:
    connection = http.client.HTTPConnection(place.metrics, timeout=timeout_s)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise ServerGoneError(f"no metrics come from {place.metrics}: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ServerGoneError(f"{place.metrics} answers status {answer.status}: is it a Triton?")
    return parse(text, place.server_id, time.monotonic())


def parse(text: str, server_id: str, at_s: float) -> Reading:
    """A reading from the text of a metrics endpoint; names that are not known are passed over."""
    reading = Reading(server_id, at_s)
    totals: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:  # a comment
            continue
        name, value = found["name"], float(found["value"])
        labels = dict(_LABEL.findall(found["labels"] or ""))
        model, gpu = labels.get("model", ""), labels.get("gpu_uuid", "")
        if name in _TOTALS:
            part, unit = _TOTALS[name]
            totals.setdefault(model, dict.fromkeys(_PARTS, 0.0))[part] += value * unit
        elif name == _PENDING:
            reading.pending[model] = reading.pending.get(model, 0) + int(value)
        elif name in _GPU:
            reading.gpus[gpu] = replace(reading.gpus.get(gpu, Device()), **{_GPU[name]: value})
        elif name in _HOST:
            reading = replace(reading, host=replace(reading.host, **{_HOST[name]: value}))
    return replace(reading, models={name: _counted(parts) for name, parts in totals.items()})


def _counted(parts: dict[str, float]) -> Statistics:
    whole: dict[str, Any] = {name: round(parts[name]) for name in _PARTS[:4]}
    return Statistics(**{**parts, **whole})


def rates(before: Reading, after: Reading) -> list[dict[str, Any]]:
    """What happened between two readings of a server: a row a model.

    Returns
    -------
    list of dict
        ``server``, ``model``, ``seconds`` between the two, ``throughput_s`` and ``failed_s``
        (requests a second that the model answered, by an error of its own too, and that failed
        otherwise), ``queue_us``, ``compute_us`` and ``server_us`` (means of the
        requests that were answered; nan without one), ``mean_batch`` (nan without a call) and
        ``pending`` (now). A model whose totals fell was loaded anew and is left out: where it
        stood is not known.
    """
    elapsed_s, rows = after.at_s - before.at_s, []
    for model, now in after.models.items():
        happened = now - before.models.get(model, _NOTHING)
        if min(happened.requests, happened.failed, happened.executions) < 0:
            continue
        count = happened.requests or _NAN
        rows.append(
            {
                "server": after.server_id,
                "model": model,
                "seconds": elapsed_s,
                "throughput_s": happened.requests / elapsed_s,
                "failed_s": happened.failed / elapsed_s,
                "queue_us": 1e6 * happened.queue_s / count,
                "compute_us": 1e6 * happened.compute_s / count,
                "server_us": 1e6 * happened.total_s / count,
                "mean_batch": happened.mean_batch,
                "pending": after.pending.get(model, 0),
            }
        )
    return rows


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
        self._places, self._every_s, self._own = _places(service), every_s, own
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
            now = _read(place, timeout_s=max(self._every_s, 1.0))
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
    servers = [place.server_id for place in _places(service)]
    if folder is None and service.server is not None:
        folder = service.server.folder
    if folder is not None and (Path(folder) / "run.json").exists():
        return Watch(service, records.Run(Path(folder)), every_s=every_s, own=False)
    asked = {"every_s": every_s, "servers": servers}
    run = records.start(folder, kind=KIND, parameters=asked)
    return Watch(service, run, every_s=every_s, own=True)
