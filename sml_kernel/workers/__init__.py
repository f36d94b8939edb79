"""Workers on demand: `launch` them here or in Slurm jobs, run gangs of ranks on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.workers import gang
    from sml_kernel.workers.dask import Workers, job_script, launch

__all__ = ["Workers", "gang", "job_script", "launch"]


def __getattr__(name: str) -> Any:
    if name == "gang":
        return importlib.import_module(f"{__name__}.gang")
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.dask"), name)
    raise AttributeError(f"sml_kernel.workers has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
