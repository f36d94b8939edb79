"""Models as a service: a real Triton server beside the notebook, and a client that asks it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.serving.answers import Answer, Served
    from sml_kernel.serving.checks import Comparison, compare
    from sml_kernel.serving.client import Service
    from sml_kernel.serving.connecting import connect
    from sml_kernel.serving.conversion import as_servable
    from sml_kernel.serving.errors import (
        InputError,
        InstallError,
        MismatchError,
        ModelError,
        ServableError,
        ServerGoneError,
        StartError,
        UnknownModelError,
    )
    from sml_kernel.serving.install import Installed, install_triton
    from sml_kernel.serving.load import Load, open_load
    from sml_kernel.serving.metrics import read_metrics
    from sml_kernel.serving.perf_analyzer import install_perf_analyzer
    from sml_kernel.serving.repository import Deployment, write
    from sml_kernel.serving.servable import Field, Servable
    from sml_kernel.serving.server import start
    from sml_kernel.serving.sweeping import sweep
    from sml_kernel.serving.watching import Watch, watch

_MODULES = {
    "Answer": "answers",
    "Comparison": "checks",
    "Deployment": "repository",
    "Field": "servable",
    "InputError": "errors",
    "InstallError": "errors",
    "Installed": "install",
    "MismatchError": "errors",
    "Load": "load",
    "ModelError": "errors",
    "Servable": "servable",
    "ServableError": "errors",
    "Served": "answers",
    "ServerGoneError": "errors",
    "Service": "client",
    "StartError": "errors",
    "UnknownModelError": "errors",
    "Watch": "watching",
    "compare": "checks",
    "connect": "connecting",
    "install_perf_analyzer": "perf_analyzer",
    "install_triton": "install",
    "open_load": "load",
    "as_servable": "conversion",
    "read_metrics": "metrics",
    "start": "server",
    "sweep": "sweeping",
    "watch": "watching",
    "write": "repository",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"sml_kernel.serving has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
