"""Where a service answers: a file in its run folder, which whoever may use the service can read.

Its mode is 0600: others of this machine are not told. It goes when the servers end.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sml_kernel.serving.errors import ServerGoneError

DISCOVERY = "server.json"


@dataclass(frozen=True)
class Place:
    """Where one server answers: ``host:port`` each, and the name by which it knows itself.

    Attributes
    ----------
    grpc, http, metrics
        Empty: it does not answer so.
    """

    grpc: str
    http: str
    metrics: str
    server_id: str


@dataclass(frozen=True)
class Discovery:
    """All that a client needs to use a service.

    Attributes
    ----------
    places
        Of its servers, which serve the same models.
    host, pid
        Of what started them and ends them.
    """

    places: tuple[Place, ...]
    host: str = field(default_factory=socket.gethostname)
    pid: int = 0


def write(folder: Path, discovery: Discovery) -> None:
    """Write the file of a run folder, whole or not at all."""
    partial = folder / f".{DISCOVERY}"
    partial.unlink(missing_ok=True)  # its mode would be kept
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(json.dumps(asdict(discovery), indent=2) + "\n")
    partial.replace(folder / DISCOVERY)


def read(folder: Path) -> Discovery:
    """What the file of a run folder says.

    Raises
    ------
    ServerGoneError
        There is none.
    """
    try:
        said = json.loads((folder / DISCOVERY).read_text())
    except FileNotFoundError:
        raise ServerGoneError(
            f"{folder} has no {DISCOVERY}: its server has ended, or it is no run of serving.start"
        ) from None
    return Discovery(**{**said, "places": tuple(Place(**each) for each in said["places"])})
