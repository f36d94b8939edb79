"""Scalable machine learning for HEP, from one notebook.

``import sml_kernel as sml`` is free: neither torch nor dask is imported until a name that needs
it is used. What is where:

==================  ==========================================================================
``sml.launch``      workers on demand, on this machine or in Slurm jobs (`sml_kernel.workers`)
``sml.site``        what a facility offers and allows (`sml_kernel.sites`)
``sml.job_script``  the Slurm script a request would send, as text, without sending it
``sml.tracking``    collision events, graphs, the graph network, tracks and their metrics
``sml.scaling``     what more ranks bring, with errors, and the reason for what they do not
``sml.sbi``         simulation-based inference: problems with exact answers, networks in stacks
``sml.serving``     models as a service: a real Triton beside the notebook, and its client
``sml.records``     what was measured, with its provenance
``sml.batch``       notebooks that run unattended, with an honest status
``sml.plots``       figures made from records
==================  ==========================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel import (
        batch,
        plots,
        records,
        sbi,
        scaling,
        serving,
        sites,
        tracking,
        workers,
    )
    from sml_kernel.sites import site
    from sml_kernel.workers import job_script, launch

__version__ = "0.1.0"
__all__ = [
    "batch",
    "job_script",
    "launch",
    "plots",
    "records",
    "sbi",
    "scaling",
    "serving",
    "site",
    "sites",
    "tracking",
    "workers",
]

_FUNCTIONS = {
    "launch": "sml_kernel.workers",
    "job_script": "sml_kernel.workers",
    "site": "sml_kernel.sites",
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"sml_kernel.{name}")
    raise AttributeError(f"sml_kernel has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
