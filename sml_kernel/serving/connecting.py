"""From where a service answers to its client: `connect`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sml_kernel.serving import discovery
from sml_kernel.serving.balancing import Endpoint
from sml_kernel.serving.client import Service
from sml_kernel.serving.conversion import as_servable
from sml_kernel.serving.discovery import Discovery, Place
from sml_kernel.serving.errors import ServerGoneError

if TYPE_CHECKING:
    from sml_kernel.serving.local import LocalServer
    from sml_kernel.serving.transports import Transport


def opened(
    found: Discovery,
    *,
    timeout_s: float = 60.0,
    server: LocalServer | None = None,
    fallback: Mapping[str, Any] | None = None,
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
    fallback
        See `connect`.
    """
    from sml_kernel.serving.transports import Grpc, Http

    endpoints = []
    for place in found.places:
        transports: dict[str, Transport] = {}
        if place.grpc:
            transports["grpc"] = Grpc(place.grpc, timeout_s)
        if place.http:
            transports["http"] = Http(place.http, timeout_s)
        endpoints.append(Endpoint(transports))
    local = {name: as_servable(name, model) for name, model in (fallback or {}).items()}
    return Service(endpoints, found, server, local)


def connect(
    where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float = 60.0,
    fallback: Mapping[str, Any] | None = None,
) -> Service:
    """Use servers that run.

    Parameters
    ----------
    where
        ``"host:port"`` or ``"grpc://host:port"`` of its gRPC, ``"http://host:port"``, or the run
        folder of a `start`, also of another process. Several of one kind: servers of the same
        models, among which requests are shared out.
    timeout_s
        Longest to wait for an answer.
    fallback
        By name, models that answer in this process when no server does: what has
        ``servable(name)``, or a `Servable`. The answer's ``.served.version`` is ``"fallback"``.

    Raises
    ------
    ServerGoneError
        Nothing answers there.
    ValueError
        What is given names no server, or several of different kinds.
    """
    several = [where] if isinstance(where, str | os.PathLike) else list(where)
    found = _together([_known(os.fspath(each)) for each in several])
    service = opened(found, timeout_s=timeout_s, fallback=fallback)
    if not service.live():
        service.close()
        told = ", ".join(os.fspath(each) for each in several)
        raise ServerGoneError(f"nothing answers at {told}: is the server up, and the port right?")
    return service


def _together(found: Sequence[Discovery]) -> Discovery:
    places = tuple(place for each in found for place in each.places)
    kinds = {(bool(place.grpc), bool(place.http)) for place in places}
    if len(kinds) != 1:
        raise ValueError("name servers, and all in one way: all by gRPC, HTTP, or run folder")
    return Discovery(places, found[0].host, found[0].pid)


def _known(text: str) -> Discovery:
    if Path(text).is_dir():
        return discovery.read(Path(text))
    scheme, divided, address = text.partition("://")
    if divided and scheme == "http":
        return Discovery((Place("", address, "", ""),))
    if not divided or scheme == "grpc":
        return Discovery((Place(address if divided else text, "", "", ""),))
    raise ValueError(f"{text!r} is none of host:port, grpc://…, http://… and a run folder")
