"""What servers say of themselves: `read_metrics` once; `serving.watching` as they work.

Triton tells totals and gauges of each model, and of each GPU, as text for Prometheus. Two readings
make a rate.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from sml_kernel.serving.discovery import Place
from sml_kernel.serving.errors import ServerGoneError
from sml_kernel.serving.statistics import Statistics

if TYPE_CHECKING:
    from sml_kernel.serving.client import Service

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
    return [read(place, timeout_s) for place in places(service)]


def places(service: Service) -> Sequence[Place]:
    """Where the servers of a service tell them. Raises as `read_metrics`."""
    if not all(place.metrics for place in service.found.places):
        raise ValueError(
            f"it is not known where {service} tells its metrics: connect by its run folder"
        )
    return service.found.places


def read(place: Place, timeout_s: float) -> Reading:
    """Read the metrics of one server. Raises as `read_metrics`."""
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
