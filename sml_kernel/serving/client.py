"""Ask a service: `Service.infer`, over the fastest transport, on whichever server is free."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, final

import numpy as np

from sml_kernel.serving import answers, choosing, deploying
from sml_kernel.serving.answers import Answer, Served
from sml_kernel.serving.asking import ask, ready
from sml_kernel.serving.balancing import Balancer, Endpoint
from sml_kernel.serving.conversion import as_servable
from sml_kernel.serving.discovery import Discovery
from sml_kernel.serving.errors import (
    InputError,
    MismatchError,
    ServerGoneError,
    UnknownModelError,
)
from sml_kernel.serving.repository import Deployment
from sml_kernel.serving.servable import Servable

if TYPE_CHECKING:
    from sml_kernel.serving.local import LocalServer
    from sml_kernel.serving.transports import Transport

_SUBMITTED = 64  # requests of `submit` under way at once


@final
class Service:
    """Models on Triton servers. A context manager; `connect` and `start` give one.

    Any number of threads may use it.

    Attributes
    ----------
    endpoints
        Its servers, which serve the same models; each request goes to the one that has least to
        do, and to another if that one fails.
    found
        Where it answers.
    server
        The server that `start` started; None of `connect`.
    measured
        Seconds of a request over each transport, by model and order of magnitude of its bytes, as
        found when the first such request was made.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        found: Discovery,
        server: LocalServer | None = None,
        fallback: Mapping[str, Servable] | None = None,
    ) -> None:
        self.endpoints = list(endpoints)
        self.found = found
        self.server = server
        self.measured: dict[tuple[str, int], dict[str, float]] = {}
        self._balancer = Balancer(self.endpoints)
        self._fallback = dict(fallback or {})
        self._measuring = threading.Lock()
        self._closed = False
        self._served: dict[str, Served] = {}  # the version that was seen last
        self._versions: dict[tuple[str, str], Served] = {}
        self._closing: list[Callable[[], None]] = []
        self._pool: ThreadPoolExecutor | None = None

    @property
    def transports(self) -> dict[str, Transport]:
        """Of the first server, by name; ``transports["grpc"].client`` is tritonclient's object."""
        return self.endpoints[0].transports

    @property
    def counts(self) -> dict[str, int]:
        """Requests: how often another server was asked (``retried``), and answers by server."""
        return dict(self._balancer.counts)

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
            ``"grpc"`` or ``"http"``. None is the fastest: the first request of a model, and of
            each order of magnitude of bytes, is sent several times over each to find out.

        Returns
        -------
        Answer or tuple of Answer
            The output, [n, …], or all outputs in the model's order. ``.served`` says which model
            answered, with its hash and the run that it comes from.

        Raises
        ------
        UnknownModelError
            No server has such a model that is ready; those that are, are in the error.
        InputError
            The input does not fit the model; nothing was sent.
        ModelError
            The model raised.
        MismatchError
            What came is no answer: bytes are missing.
        ServerGoneError
            No server answers any more and there is no fallback, or the service was closed.
        TimeoutError
            It did not answer in time.
        """
        self._check(transport)
        try:
            served = self.describe(name)
            arrays = answers.fitting(served, given)
            by = transport or self._fastest(served, arrays)
            endpoint, result = self._send(served, arrays, by)
            version = _version(result)
            if version != served.version:  # the first answer, or another version since
                served = self._of_version(name, version, endpoint)
        except ServerGoneError:
            if name not in self._fallback:
                raise
            return self._directly(self._fallback[name], given)
        return _one(tuple(_output(served, result, field.name) for field in served.outputs))

    def submit(self, name: str, given: Any, *, transport: str | None = None) -> Future[Any]:
        """`infer` in the background: a future of what it returns or raises."""
        self._check(transport)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_SUBMITTED, thread_name_prefix="sml-serving")
        return self._pool.submit(self.infer, name, given, transport=transport)

    async def ainfer(self, name: str, given: Any, *, transport: str | None = None) -> Any:
        """`infer` for asyncio: the event loop goes on while threads wait for the answer."""
        return await asyncio.wrap_future(self.submit(name, given, transport=transport))

    def describe(self, name: str) -> Served:
        """What a model takes and gives, its hash and its run. Raises as `infer`."""
        if name in self._served:
            return self._served[name]
        _, served = self._anywhere(name, lambda each: self._describe(name, "", each))
        return served

    def models(self) -> list[str]:
        """The models that are ready, of any server. Raises `ServerGoneError`."""
        self._check(None)
        return self._anywhere("", lambda each: self._ask(each, "", None, ready))[1]

    def live(self) -> bool:
        """Whether a server answers."""
        self._check(None)
        return any(_first(each).live() for each in self.endpoints)

    def deploy(
        self,
        name: str,
        model: Any,
        example: Any = None,
        *,
        deployment: Deployment | None = None,
        tolerance: float = 1e-5,
    ) -> Served:
        """Put a model onto the servers while they run, in the place of the one of that name.

        It is compared with itself called in this process before it answers anybody; until then,
        and if anything goes wrong, the model before it answers.

        Parameters
        ----------
        name
            Of a model that is there, or a new one.
        model, example
            As for `serving.start`.
        deployment
            How it runs; None: as the one before it, or by the defaults.
        tolerance
            As for `serving.start`.

        Returns
        -------
        Served
            With its new version.

        Raises
        ------
        ServableError
            It cannot be served.
        StartError
            It does not load; Triton's reason.
        MismatchError
            It answers otherwise than called directly.
        """
        self._check(None)
        made = as_servable(name, model, example)
        version = deploying.deploy(self, made, deployment, tolerance)
        self._served[name] = self._of_version(name, str(version), self.endpoints[0])
        return self._served[name]

    def only(self, endpoint: Endpoint) -> Service:
        """The same service as if it had this server alone; its connections are shared."""
        return Service([endpoint], self.found)

    def close(self) -> None:
        """Close the connections, and the server if `start` started it; again is harmless."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._balancer.close()
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
        places = [
            f"{name}://{each.url}" for e in self.endpoints for name, each in e.transports.items()
        ]
        return f"<Service at {', '.join(places)}>"

    def _check(self, transport: str | None) -> None:
        if self._closed:
            raise ServerGoneError("this service was closed; start it again with serving.start")
        if transport is not None and transport not in self.transports:
            known = ", ".join(self.transports)
            raise InputError(f"no transport {transport!r}; there are {known}")

    def _fastest(self, served: Served, arrays: Sequence[np.ndarray]) -> str:
        names = list(self.transports)
        if len(names) == 1:
            return names[0]
        key = (served.name, int(math.log10(max(1, sum(each.nbytes for each in arrays)))))
        with self._measuring:  # others wait: they would disturb it
            if key not in self.measured:
                found = choosing.measured(names, lambda by: self._send(served, arrays, by))
                self.measured[key] = found
        return min(names, key=lambda name: self.measured[key][name])

    def _send(self, served: Served, arrays: Sequence[np.ndarray], by: str) -> tuple[Endpoint, Any]:
        def send(endpoint: Endpoint) -> Any:
            return self._ask(endpoint, served.name, by, lambda chosen: chosen.infer(served, arrays))

        endpoint, result = self._anywhere(served.name, send)
        self._balancer.answered(endpoint)
        return endpoint, result

    def _anywhere(self, name: str, send: Callable[[Endpoint], Any]) -> tuple[Endpoint, Any]:
        """Send to the server that has least to do; if it is gone, to the next, each once."""
        tried: list[Endpoint] = []
        lacking: list[Endpoint] = []
        while True:
            with self._balancer.least_busy(tried) as endpoint:
                try:
                    result = send(endpoint)
                except (ServerGoneError, UnknownModelError) as error:
                    tried.append(endpoint)
                    if len(tried) == len(self.endpoints):
                        raise
                    if isinstance(error, UnknownModelError):
                        lacking.append(endpoint)  # or nobody has it
                    else:
                        self._balancer.failed(endpoint, name)
                    continue
            for each in lacking:
                self._balancer.failed(each, name)
            return endpoint, result

    def _ask(
        self, endpoint: Endpoint, name: str, by: str | None, do: Callable[[Transport], Any]
    ) -> Any:
        chosen = endpoint.transports[by] if by else _first(endpoint)
        return ask(chosen, name, lambda: do(chosen), self._if_gone())

    def _describe(self, name: str, version: str, endpoint: Endpoint) -> Served:
        config = self._ask(endpoint, name, None, lambda chosen: chosen.config(name))
        self._served[name] = answers.described(name, version, config)
        return self._served[name]

    def _of_version(self, name: str, version: str, endpoint: Endpoint) -> Served:
        """While another version is put in its place, answers of both come."""
        if (name, version) not in self._versions:
            self._versions[name, version] = self._describe(name, version, endpoint)
        return self._versions[name, version]

    def _if_gone(self) -> str:
        if self.server is None:
            return "the server ended, or cannot be reached from here; ask who runs it"
        log = self.server.log
        return f"the server ended; start it again with serving.start. Its log is {log}"

    def _directly(self, model: Servable, given: Any) -> Any:
        """The answer of the fallback, which says so as its version."""
        served = answers.of_servable(model, "fallback")
        outputs = model.direct(answers.fitting(served, given))
        return _one(tuple(answers.answer(values, served) for values in outputs))


def _first(endpoint: Endpoint) -> Transport:
    return next(iter(endpoint.transports.values()))


def _output(served: Served, result: Any, name: str) -> Answer:
    field = next(each for each in served.outputs if each.name == name)
    try:
        values = result.as_numpy(name)
    except ValueError as error:
        raise MismatchError(
            f"{served.name!r} answered {name} with other bytes than its shape and type say: "
            f"its server corrupts arrays ({error})"
        ) from error
    return answers.answer(served.unwired(field, values), served)


def _one(outputs: tuple[Answer, ...]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs


def _version(result: Any) -> str:
    said = result.get_response()
    return str(said["model_version"] if isinstance(said, dict) else said.model_version)
