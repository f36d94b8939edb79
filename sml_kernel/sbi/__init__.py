"""Simulation-based inference: problems with exact answers, and many networks trained as one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.sbi.bands import Bands, Check
    from sml_kernel.sbi.batches import Sample, sample
    from sml_kernel.sbi.bootstrap import poisson_weights
    from sml_kernel.sbi.coverage import Coverage, measure_coverage
    from sml_kernel.sbi.ensemble import Ensemble, Fit, MissingError, open_fit
    from sml_kernel.sbi.estimates import Estimate, estimate
    from sml_kernel.sbi.evaluation import logits
    from sml_kernel.sbi.exact import (
        Exact,
        GaussianShift,
        MixtureFraction,
        SignedMixture,
        draw,
        log_ratio,
    )
    from sml_kernel.sbi.fair_universe import read_fair_universe
    from sml_kernel.sbi.fair_universe_score import Score, challenge_score
    from sml_kernel.sbi.fisher import Information, fisher_information
    from sml_kernel.sbi.htautau_problem import expected_yields, htautau
    from sml_kernel.sbi.impacts import Impacts, rank_impacts
    from sml_kernel.sbi.inference import Inference
    from sml_kernel.sbi.interference import QuadraticInterference
    from sml_kernel.sbi.intervals import Intervals, confidence_intervals
    from sml_kernel.sbi.labels import ParameterPoint
    from sml_kernel.sbi.likelihood import Likelihood
    from sml_kernel.sbi.members import Member, Recipe, Trained
    from sml_kernel.sbi.metrics import Held, judge
    from sml_kernel.sbi.origins import InputError
    from sml_kernel.sbi.problems import Problem
    from sml_kernel.sbi.ratios import Rates, Ratios
    from sml_kernel.sbi.readers import read_problem
    from sml_kernel.sbi.refits import Refits, refit
    from sml_kernel.sbi.scans import Scan, scan
    from sml_kernel.sbi.scorecard import Scorecard
    from sml_kernel.sbi.scoring import Combined
    from sml_kernel.sbi.spread import Components, components, members_needed
    from sml_kernel.sbi.stack import train
    from sml_kernel.sbi.strengths import Strengths, fraction, offshell, signal_strength
    from sml_kernel.sbi.toys import asimov
    from sml_kernel.sbi.two_sample import TwoSample, classifier_two_sample
    from sml_kernel.sbi.workspace import ControlRegions, control_regions
    from sml_kernel.sbi.yields import Yield, yield_ratio

_MODULES = {
    "Bands": "bands",
    "Check": "bands",
    "Combined": "scoring",
    "Components": "spread",
    "ControlRegions": "workspace",
    "Coverage": "coverage",
    "Ensemble": "ensemble",
    "Estimate": "estimates",
    "Exact": "exact",
    "Fit": "ensemble",
    "GaussianShift": "exact",
    "Held": "metrics",
    "Impacts": "impacts",
    "Inference": "inference",
    "Information": "fisher",
    "InputError": "origins",
    "Intervals": "intervals",
    "Likelihood": "likelihood",
    "Member": "members",
    "MissingError": "ensemble",
    "MixtureFraction": "exact",
    "ParameterPoint": "labels",
    "Problem": "problems",
    "QuadraticInterference": "interference",
    "Rates": "ratios",
    "Ratios": "ratios",
    "Recipe": "members",
    "Refits": "refits",
    "Sample": "batches",
    "Scan": "scans",
    "Score": "fair_universe_score",
    "Scorecard": "scorecard",
    "SignedMixture": "exact",
    "Strengths": "strengths",
    "Trained": "members",
    "TwoSample": "two_sample",
    "Yield": "yields",
    "asimov": "toys",
    "challenge_score": "fair_universe_score",
    "classifier_two_sample": "two_sample",
    "components": "spread",
    "confidence_intervals": "intervals",
    "control_regions": "workspace",
    "draw": "exact",
    "estimate": "estimates",
    "expected_yields": "htautau_problem",
    "fisher_information": "fisher",
    "fraction": "strengths",
    "htautau": "htautau_problem",
    "judge": "metrics",
    "log_ratio": "exact",
    "logits": "evaluation",
    "measure_coverage": "coverage",
    "members_needed": "spread",
    "offshell": "strengths",
    "open_fit": "ensemble",
    "poisson_weights": "bootstrap",
    "rank_impacts": "impacts",
    "read_fair_universe": "fair_universe",
    "read_problem": "readers",
    "refit": "refits",
    "sample": "batches",
    "scan": "scans",
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
