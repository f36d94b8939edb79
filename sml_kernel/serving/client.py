"""Ask a service: `Service.infer`, over gRPC or HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sml_kernel.serving import answers, discovery
from sml_kernel.serving.answers import Answer, Served
from sml_kernel.serving.discovery import Discovery, Place
from sml_kernel.serving.errors import (
    InputError,
    MismatchError,
    ModelError,
    ServerGoneError,
    UnknownModelError,
)

if TYPE_CHECKING:
    from sml_kernel.serving.local import LocalServer
    from sml_kernel.serving.transports import Transport


@final
class Service:
    """Models on a Triton server. A context manager; `connect` and `start` give one.

    Attributes
    ----------
    transports
        By name, ``"grpc"`` and ``"http"``, those that there are; the first is used if none is
        named. ``transports["grpc"].client`` is tritonclient's own object.
    found
        Where it answers.
    server
        The server that `start` started; None of `connect`.
    """

    def __init__(
        self,
        transports: dict[str, Transport],
        found: Discovery,
        server: LocalServer | None = None,
    ) -> None:
        self.transports = transports
        self.found = found
        self.server = server
        self._closed = False
        self._served: dict[str, Served] = {}
        self._closing: list[Callable[[], None]] = []

    def infer(self, name: str, given: Any, *, transport: str | None = None) -> Any:
        """Ask a model.

        Parameters
        ----------
        name
            The model.
        given
            Its input, [n, …] with the batch first: an array or a tensor; several in a tuple, or
            in a mapping by name. Of a ragged model one thing of any size: so, or as an object
            that has the inputs as attributes, such as a graph of torch_geometric.
        transport
            ``"grpc"`` or ``"http"``; None is the first that there is.

        Returns
        -------
        Answer or tuple of Answer
            The output, [n, …], or all outputs in the model's order. ``.served`` says which model
            answered, with its hash and the run that it comes from.

        Raises
        ------
        UnknownModelError
            The server has no such model that is ready; those that are, are in the error.
        InputError
            The input does not fit the model; nothing was sent.
        ModelError
            The model raised.
        MismatchError
            What came is no answer: bytes are missing.
        ServerGoneError
            No server answers any more, or the service was closed.
        TimeoutError
            It did not answer in time.
        """
        chosen = self._transport(transport)
        served = self.describe(name)
        arrays = answers.fitting(served, given)
        result = self._ask(chosen, name, lambda: chosen.infer(served, arrays))
        version = _version(result)
        if version != served.version:  # the first answer, or another version since
            served = self._describe(name, version)
        outputs = tuple(self._output(served, result, field.name) for field in served.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def describe(self, name: str) -> Served:
        """What a model takes and gives, its hash and its run. Raises as `infer`."""
        return self._served.get(name) or self._describe(name, "")

    def models(self) -> list[str]:
        """The models that are ready. Raises `ServerGoneError`."""
        chosen = self._transport(None)
        return _ready(self._ask(chosen, "", chosen.index))

    def live(self) -> bool:
        """Whether the server answers."""
        return self._transport(None).live()

    def close(self) -> None:
        """Close the connections, and the server if `start` started it; again is harmless."""
        self._closed = True
        for transport in self.transports.values():
            transport.close()
        while self._closing:
            self._closing.pop()()

    def on_close(self, action: Callable[[], None]) -> None:
        """Have `close` do this too, the last given first."""
        self._closing.append(action)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = ", ".join(f"{name}://{each.url}" for name, each in self.transports.items())
        return f"<Service at {where}>"

    def _transport(self, name: str | None) -> Transport:
        if self._closed:
            raise ServerGoneError("this service was closed; start it again with serving.start")
        if name is None:
            return next(iter(self.transports.values()))
        if name not in self.transports:
            raise InputError(f"no transport {name!r}; there are {', '.join(self.transports)}")
        return self.transports[name]

    def _describe(self, name: str, version: str) -> Served:
        chosen = self._transport(None)
        config = self._ask(chosen, name, lambda: chosen.config(name))
        self._served[name] = answers.described(name, version, config)
        return self._served[name]

    def _output(self, served: Served, result: Any, name: str) -> Answer:
        field = next(each for each in served.outputs if each.name == name)
        try:
            values = result.as_numpy(name)
        except ValueError as error:
            raise MismatchError(
                f"{served.name!r} answered {name} with other bytes than its shape and type say: "
                f"its server corrupts arrays ({error})"
            ) from error
        return answers.answer(served.unwired(field, values), served)

    def _ask(self, transport: Transport, name: str, ask: Callable[[], Any]) -> Any:
        """Do it, and give what goes wrong its name."""
        from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
        from tritonclient.utils import InferenceServerException

        try:
            return ask()
        except InferenceServerException as error:
            if error.status() == "StatusCode.DEADLINE_EXCEEDED":
                raise TimeoutError(f"{transport.url} did not answer in time") from error
            raise self._named(transport, name, error) from error
        except TimeoutError as error:
            raise TimeoutError(f"{transport.url} did not answer in time") from error
        except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
            raise self._named(transport, name, error) from error

    def _named(self, transport: Transport, name: str, error: Exception) -> Exception:
        if not transport.live():
            return ServerGoneError(self._gone(transport))
        ready = _ready(transport.index())
        if name and name not in ready:
            known = ", ".join(ready) or "none"
            return UnknownModelError(
                f"no model {name!r} is ready at {transport.url}; ready: {known}"
            )
        told = error.message() if hasattr(error, "message") else str(error)
        return ModelError(f"{name!r} failed: {told}")

    def _gone(self, transport: Transport) -> str:
        told = f"nothing answers at {transport.url}: "
        if self.server is None:
            return told + "the server ended, or cannot be reached from here; ask who runs it"
        log = self.server.log
        return told + f"the server ended; start it again with serving.start. Its log is {log}"


def opened(
    found: Discovery, *, timeout_s: float = 60.0, server: LocalServer | None = None
) -> Service:
    """The client of a service that is known.

    Parameters
    ----------
    found
        Where it answers.
    timeout_s
        Longest to wait for an answer.
    server
        What runs it, if this process does.
    """
    from sml_kernel.serving.transports import Grpc, Http

    (place,) = found.places
    transports: dict[str, Transport] = {}
    if place.grpc:
        transports["grpc"] = Grpc(place.grpc, timeout_s)
    if place.http:
        transports["http"] = Http(place.http, timeout_s)
    return Service(transports, found, server)


def connect(where: str | os.PathLike[str], *, timeout_s: float = 60.0) -> Service:
    """Use a server that runs.

    Parameters
    ----------
    where
        ``"host:port"`` or ``"grpc://host:port"`` of its gRPC, ``"http://host:port"``, or the run
        folder of a `start`, also of another process.
    timeout_s
        Longest to wait for an answer.

    Raises
    ------
    ServerGoneError
        Nothing answers there.
    """
    text = os.fspath(where)
    path = Path(text)
    service = opened(discovery.read(path) if path.is_dir() else _named(text), timeout_s=timeout_s)
    if not service.live():
        service.close()
        raise ServerGoneError(f"nothing answers at {text}: is the server up, and the port right?")
    return service


def _named(url: str) -> Discovery:
    scheme, divided, address = url.partition("://")
    if divided and scheme == "http":
        return Discovery((Place("", address, "", ""),))
    if not divided or scheme == "grpc":
        return Discovery((Place(address if divided else url, "", "", ""),))
    raise ValueError(f"{url!r} is none of host:port, grpc://…, http://… and a run folder")


def _ready(index: list[dict[str, Any]]) -> list[str]:
    return sorted(each["name"] for each in index if each.get("state") == "READY")


def _version(result: Any) -> str:
    said = result.get_response()
    return str(said["model_version"] if isinstance(said, dict) else said.model_version)
