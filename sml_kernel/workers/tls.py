"""Keys for the connections of one launch: without them any user of a node could run code as you."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed.security import Security

FILES = ("ca.pem", "cert.pem", "key.pem")


def write(folder: Path) -> Security:
    """Make a key and a certificate of its own authority in ``folder/tls``, readable to the owner.

    Scheduler, workers and client hold the same pair: who has it belongs to this launch. It is good
    for a year, and gone when the launch ends.

    Returns
    -------
    Security
        What Dask's scheduler and client take.
    """
    from distributed.security import Security

    made = Security.temporary()
    texts = (made.tls_ca_file, made.tls_worker_cert, made.tls_worker_key)
    keys = folder / "tls"
    keys.mkdir(mode=0o700)
    for name, text in zip(FILES, texts, strict=True):
        descriptor = os.open(keys / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(str(text))
    ca, cert, key = (str(keys / name) for name in FILES)
    return Security(
        tls_ca_file=ca,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
        tls_client_cert=cert,
        tls_client_key=key,
        require_encryption=True,
    )


def remove(folder: Path) -> None:
    """Remove the keys of a run folder; nothing happens where there are none."""
    keys = folder / "tls"
    for name in FILES:
        (keys / name).unlink(missing_ok=True)
    if keys.is_dir():
        keys.rmdir()
