"""Workers on demand: `launch` them here or in Slurm jobs, run gangs of ranks on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.workers import gang, leftovers
    from sml_kernel.workers.dask import job_script, launch
    from sml_kernel.workers.handle import Workers, WorkersError
    from sml_kernel.workers.limits import RequestError
    from sml_kernel.workers.slurm import SlurmError

__all__ = [
    "RequestError",
    "SlurmError",
    "Workers",
    "WorkersError",
    "gang",
    "job_script",
    "launch",
    "leftovers",
]

_MODULES = {
    "RequestError": "limits",
    "SlurmError": "slurm",
    "Workers": "handle",
    "WorkersError": "handle",
    "job_script": "dask",
    "launch": "dask",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"sml_kernel.workers has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
