"""Scaling studies: what more ranks bring, with errors, and the reason for what they do not."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.scaling import laws
    from sml_kernel.scaling.forecast import Prediction, compare, predict
    from sml_kernel.scaling.results import Study, StudyError, open_study
    from sml_kernel.scaling.studies import study
    from sml_kernel.scaling.targets import TargetStudy, time_to_target

__all__ = [
    "Prediction",
    "Study",
    "StudyError",
    "TargetStudy",
    "compare",
    "laws",
    "open_study",
    "predict",
    "study",
    "time_to_target",
]

_MODULES = {
    "Prediction": "forecast",
    "Study": "results",
    "StudyError": "results",
    "TargetStudy": "targets",
    "compare": "forecast",
    "open_study": "results",
    "predict": "forecast",
    "study": "studies",
    "time_to_target": "targets",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"sml_kernel.scaling has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
