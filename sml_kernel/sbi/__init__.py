"""Simulation-based inference: problems with exact answers, and many networks trained as one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.sbi.batches import Sample, sample
    from sml_kernel.sbi.bootstrap import poisson_weights
    from sml_kernel.sbi.ensemble import Ensemble, Fit, MissingError, open_fit
    from sml_kernel.sbi.exact import (
        Exact,
        GaussianShift,
        MixtureFraction,
        SignedMixture,
        draw,
        log_ratio,
    )
    from sml_kernel.sbi.inference import Inference
    from sml_kernel.sbi.interference import QuadraticInterference
    from sml_kernel.sbi.labels import ParameterPoint
    from sml_kernel.sbi.members import Member, Recipe, Trained
    from sml_kernel.sbi.origins import InputError
    from sml_kernel.sbi.problems import Problem
    from sml_kernel.sbi.ratios import Rates, Ratios
    from sml_kernel.sbi.readers import read_problem
    from sml_kernel.sbi.scoring import Combined
    from sml_kernel.sbi.stack import train
    from sml_kernel.sbi.strengths import Strengths, fraction, offshell, signal_strength
    from sml_kernel.sbi.yields import Yield, yield_ratio

_MODULES = {
    "Combined": "scoring",
    "Ensemble": "ensemble",
    "Exact": "exact",
    "Fit": "ensemble",
    "GaussianShift": "exact",
    "Inference": "inference",
    "InputError": "origins",
    "Member": "members",
    "MissingError": "ensemble",
    "MixtureFraction": "exact",
    "ParameterPoint": "labels",
    "Problem": "problems",
    "QuadraticInterference": "interference",
    "Rates": "ratios",
    "Ratios": "ratios",
    "Recipe": "members",
    "Sample": "batches",
    "SignedMixture": "exact",
    "Strengths": "strengths",
    "Trained": "members",
    "Yield": "yields",
    "draw": "exact",
    "fraction": "strengths",
    "log_ratio": "exact",
    "offshell": "strengths",
    "open_fit": "ensemble",
    "poisson_weights": "bootstrap",
    "read_problem": "readers",
    "sample": "batches",
    "signal_strength": "strengths",
    "train": "stack",
    "yield_ratio": "yields",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"sml_kernel.sbi has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
