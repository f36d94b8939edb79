"""The two protocols of Triton behind one shape: arrays out, tritonclient's results in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol, final

import numpy as np

from sml_kernel.serving.answers import Served
from sml_kernel.serving.servable import TYPES

#: gRPC waits a second and more before it tries a connection again, and refuses large messages.
_GRPC_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


class Transport(Protocol):
    """A protocol to one server. Its methods raise as tritonclient does, or an `OSError`."""

    url: str

    @property
    def client(self) -> Any:
        """tritonclient's own object beneath."""

    def live(self) -> bool:
        """Whether a server answers; False also for what cannot be reached."""

    def config(self, name: str) -> dict[str, Any]:
        """Triton's configuration of a model."""

    def statistics(self, name: str) -> list[dict[str, Any]]:
        """Triton's counters of a model, of each of its versions; of all models if it is empty."""

    def infer(self, served: Served, arrays: Sequence[np.ndarray]) -> Any:
        """tritonclient's result."""

    def close(self) -> None:
        """Close what is open."""


@final
class Grpc:
    """One gRPC channel, which any thread may use."""

    def __init__(self, url: str, timeout_s: float) -> None:
        from tritonclient import grpc

        self.url, self._timeout_s, self._tritonclient = url, timeout_s, grpc
        # a proxy of the environment knows nothing of this machine's loopback
        local = [("grpc.enable_http_proxy", 0)] if url.startswith(("127.", "localhost")) else []
        self.client = grpc.InferenceServerClient(url, channel_args=[*_GRPC_OPTIONS, *local])

    def live(self) -> bool:
        from tritonclient.utils import InferenceServerException

        try:
            return bool(self.client.is_server_live(client_timeout=min(self._timeout_s, 5.0)))
        except InferenceServerException:
            return False

    def config(self, name: str) -> dict[str, Any]:
        said = self.client.get_model_config(name, as_json=True, client_timeout=self._timeout_s)
        return said["config"]

    def statistics(self, name: str) -> list[dict[str, Any]]:
        said = self.client.get_inference_statistics(
            name, as_json=True, client_timeout=self._timeout_s
        )
        return said.get("model_stats", [])

    def infer(self, served: Served, arrays: Sequence[np.ndarray]) -> Any:
        given, wanted = _request(self._tritonclient, served, arrays)
        limit_s = self._timeout_s
        return self.client.infer(served.name, given, outputs=wanted, client_timeout=limit_s)

    def close(self) -> None:
        self.client.close()


@final
class Http:
    """HTTP connections, one a thread: tritonclient's belong to the thread that made them."""

    def __init__(self, url: str, timeout_s: float) -> None:
        from tritonclient import http

        self.url, self._timeout_s, self._tritonclient = url, timeout_s, http
        self._own = threading.local()

    @property
    def client(self) -> Any:
        if not hasattr(self._own, "client"):
            self._own.client = self._tritonclient.InferenceServerClient(
                self.url,
                connection_timeout=min(self._timeout_s, 5.0),
                network_timeout=self._timeout_s,
            )
        return self._own.client

    def live(self) -> bool:
        from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

        try:
            return bool(self.client.is_server_live())
        except (OSError, HTTPConnectionClosed, HTTPParseError):
            return False

    def config(self, name: str) -> dict[str, Any]:
        return self.client.get_model_config(name)

    def statistics(self, name: str) -> list[dict[str, Any]]:
        return self.client.get_inference_statistics(name)["model_stats"]

    def infer(self, served: Served, arrays: Sequence[np.ndarray]) -> Any:
        given, wanted = _request(self._tritonclient, served, arrays)
        return self.client.infer(served.name, given, outputs=wanted)

    def close(self) -> None:
        if hasattr(self._own, "client"):
            self._own.client.close()
            del self._own.client


def _request(
    tritonclient: ModuleType, served: Served, arrays: Sequence[np.ndarray]
) -> tuple[list[Any], list[Any]]:
    """Inputs with their data, and the outputs that are wanted, as tritonclient has them."""
    given = []
    for field, values in zip(served.inputs, arrays, strict=True):
        sent = served.wire(field, values)
        given.append(tritonclient.InferInput(field.name, list(sent.shape), TYPES[str(sent.dtype)]))
        given[-1].set_data_from_numpy(sent)
    return given, [tritonclient.InferRequestedOutput(field.name) for field in served.outputs]
