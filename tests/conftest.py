"""What several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Shells ignore SIGINT in what they start with ``&``, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """A file or folder of the sample data, which lies beside the checkout; skips without it."""
    folder = Path(os.environ.get("SML_SHARED_DATA", _BESIDE))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"no {folder / name}: name the folder of sample data by SML_SHARED_DATA")
        return folder / name

    return find
