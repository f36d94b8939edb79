"""A model put onto servers that run, over the wire, and used only when it answers as it should.

A new model is first loaded under a name that nobody asks, and compared there with the model called
in this process. Only then do the servers load it under its own name, as the next version: Triton
answers by the version before until the new one is ready, and goes on with it if the new one is not.
A version has to be new, for Triton takes other files under the same one for what it has.

What came over the wire lies in the server's temporary files, not in its repository: a server that
is started again has the models that it was started with.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sml_kernel import records
from sml_kernel.serving import checks, repository
from sml_kernel.serving.balancing import Endpoint
from sml_kernel.serving.errors import StartError
from sml_kernel.serving.repository import Deployment
from sml_kernel.serving.servable import Servable

if TYPE_CHECKING:
    from sml_kernel.serving.client import Service


def deploy(
    service: Service, model: Servable, deployment: Deployment | None, tolerance: float
) -> int:
    """Put a model onto all servers of a service: see `Service.deploy`.

    Returns
    -------
    int
        The version that answers now.
    """
    with contextlib.ExitStack() as stack:
        for endpoint in service.endpoints:
            stack.enter_context(_candidate(service, endpoint, model, deployment, tolerance))
    version = 1 + max(_version(each, model.name) for each in service.endpoints)
    for endpoint in service.endpoints:
        _load(endpoint, model, deployment, version)
    if service.server is not None:
        run = records.Run(service.server.folder)
        with run.writer(f"deploy-{version}-{secrets.token_hex(4)}") as writer:
            writer.append("deploy", model=model.name, version=version, hash=model.hash())
    return version


@contextlib.contextmanager
def _candidate(
    service: Service,
    endpoint: Endpoint,
    model: Servable,
    deployment: Deployment | None,
    tolerance: float,
) -> Iterator[None]:
    """The model on one server under a name of its own, compared with itself called directly."""
    hidden = replace(model, name=f"{model.name}.candidate-{secrets.token_hex(4)}")
    _load(endpoint, hidden, deployment or _like(endpoint, model.name), 1)
    try:
        for transport in endpoint.transports:
            checks.compare(service.only(endpoint), hidden, transport, tolerance=tolerance)
        yield
    finally:
        _client(endpoint).unload_model(hidden.name)


def _load(endpoint: Endpoint, model: Servable, deployment: Deployment | None, version: int) -> None:
    from tritonclient.utils import InferenceServerException

    how = deployment or _like(endpoint, model.name)
    config, files = repository.wire(model, how, version)
    try:
        _client(endpoint).load_model(model.name, config=config, files=files)
    except InferenceServerException as error:
        raise StartError(f"{model.name!r} does not load at {endpoint.url}: {error}") from error


def _like(endpoint: Endpoint, name: str) -> Deployment:
    """How the version that is there runs; as always for a new model."""
    if not _version(endpoint, name):
        return Deployment()
    said = next(iter(endpoint.transports.values())).config(name)
    groups: Sequence[dict[str, Any]] = said.get("instance_group", [{}])
    batching = said.get("dynamic_batching", {})
    most = int(said["max_batch_size"])
    return Deployment(
        instances=int(groups[0].get("count", 1)),
        max_batch=most,
        queue_delay_us=int(batching.get("max_queue_delay_microseconds", 0)),
        gpus=tuple(map(int, groups[0].get("gpus", ()))),
        max_joined=most,
    )


def _version(endpoint: Endpoint, name: str) -> int:
    """The highest version that is there; 0 where the model is unknown."""
    there = next(iter(endpoint.transports.values())).statistics("")
    return max((int(each["version"]) for each in there if each["name"] == name), default=0)


def _client(endpoint: Endpoint) -> Any:
    return next(iter(endpoint.transports.values())).client
