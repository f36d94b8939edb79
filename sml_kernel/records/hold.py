"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class HeldError(RuntimeError):
    """Another process holds the folder."""


class Hold:
    """A lock on a folder, until it is released or this process is gone, however it goes.

    A context manager.

    Raises
    ------
    HeldError
        It is held, by another process or elsewhere in this one.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise HeldError(f"another process holds {folder}") from None

    def release(self) -> None:
        """Let others have it; again is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
