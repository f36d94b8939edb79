"""Simulation-based inference: problems with exact answers, and many networks trained as one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.sbi.campaign.scoring import Combined
    from sml_kernel.sbi.ensemble import Ensemble
    from sml_kernel.sbi.fit import Fit, MissingError, open_fit
    from sml_kernel.sbi.higgs.challenge_files import read_fair_universe
    from sml_kernel.sbi.higgs.score import Score, challenge_score
    from sml_kernel.sbi.higgs.simulated import expected_yields, htautau
    from sml_kernel.sbi.inference import Inference
    from sml_kernel.sbi.likelihood.coverage import Coverage, measure_coverage
    from sml_kernel.sbi.likelihood.estimates import Estimate, estimate
    from sml_kernel.sbi.likelihood.fisher import Information, fisher_information
    from sml_kernel.sbi.likelihood.impacts import Impacts, rank_impacts
    from sml_kernel.sbi.likelihood.intervals import Intervals, confidence_intervals
    from sml_kernel.sbi.likelihood.model import Likelihood
    from sml_kernel.sbi.likelihood.norms import log_norms
    from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
    from sml_kernel.sbi.likelihood.refits import Refits, refit
    from sml_kernel.sbi.likelihood.scans import Scan, scan
    from sml_kernel.sbi.likelihood.strengths import Strengths, fraction, offshell, signal_strength
    from sml_kernel.sbi.likelihood.toys import asimov
    from sml_kernel.sbi.likelihood.workspace import ControlRegions, control_regions
    from sml_kernel.sbi.problems.exact import (
        Exact,
        GaussianShift,
        MixtureFraction,
        SignedMixture,
        draw,
        log_ratio,
    )
    from sml_kernel.sbi.problems.interference import QuadraticInterference
    from sml_kernel.sbi.problems.labels import ParameterPoint
    from sml_kernel.sbi.problems.origins import InputError
    from sml_kernel.sbi.problems.problem import Problem
    from sml_kernel.sbi.problems.readers import read_problem
    from sml_kernel.sbi.problems.yields import Yield, yield_ratio
    from sml_kernel.sbi.scorecard.bands import Bands, Check
    from sml_kernel.sbi.scorecard.card import Scorecard
    from sml_kernel.sbi.scorecard.metrics import Held, judge
    from sml_kernel.sbi.scorecard.spread import Components, components, members_needed
    from sml_kernel.sbi.scorecard.two_sample import TwoSample, classifier_two_sample
    from sml_kernel.sbi.stack.batches import Sample, sample
    from sml_kernel.sbi.stack.bootstrap import poisson_weights
    from sml_kernel.sbi.stack.evaluation import logits
    from sml_kernel.sbi.stack.members import Member, Recipe, Trained
    from sml_kernel.sbi.stack.training import train

_MODULES = {
    "Bands": "scorecard.bands",
    "Check": "scorecard.bands",
    "Combined": "campaign.scoring",
    "Components": "scorecard.spread",
    "ControlRegions": "likelihood.workspace",
    "Coverage": "likelihood.coverage",
    "Ensemble": "ensemble",
    "Estimate": "likelihood.estimates",
    "Exact": "problems.exact",
    "Fit": "fit",
    "GaussianShift": "problems.exact",
    "Held": "scorecard.metrics",
    "Impacts": "likelihood.impacts",
    "Inference": "inference",
    "Information": "likelihood.fisher",
    "InputError": "problems.origins",
    "Intervals": "likelihood.intervals",
    "Likelihood": "likelihood.model",
    "Member": "stack.members",
    "MissingError": "fit",
    "MixtureFraction": "problems.exact",
    "ParameterPoint": "problems.labels",
    "Problem": "problems.problem",
    "QuadraticInterference": "problems.interference",
    "Rates": "likelihood.ratios",
    "Ratios": "likelihood.ratios",
    "Recipe": "stack.members",
    "Refits": "likelihood.refits",
    "Sample": "stack.batches",
    "Scan": "likelihood.scans",
    "Score": "higgs.score",
    "Scorecard": "scorecard.card",
    "SignedMixture": "problems.exact",
    "Strengths": "likelihood.strengths",
    "Trained": "stack.members",
    "TwoSample": "scorecard.two_sample",
    "Yield": "problems.yields",
    "asimov": "likelihood.toys",
    "challenge_score": "higgs.score",
    "classifier_two_sample": "scorecard.two_sample",
    "components": "scorecard.spread",
    "confidence_intervals": "likelihood.intervals",
    "control_regions": "likelihood.workspace",
    "draw": "problems.exact",
    "estimate": "likelihood.estimates",
    "expected_yields": "higgs.simulated",
    "fisher_information": "likelihood.fisher",
    "fraction": "likelihood.strengths",
    "htautau": "higgs.simulated",
    "judge": "scorecard.metrics",
    "log_ratio": "problems.exact",
    "log_norms": "likelihood.norms",
    "logits": "stack.evaluation",
    "measure_coverage": "likelihood.coverage",
    "members_needed": "scorecard.spread",
    "offshell": "likelihood.strengths",
    "open_fit": "fit",
    "poisson_weights": "stack.bootstrap",
    "rank_impacts": "likelihood.impacts",
    "read_fair_universe": "higgs.challenge_files",
    "read_problem": "problems.readers",
    "refit": "likelihood.refits",
    "sample": "stack.batches",
    "scan": "likelihood.scans",
    "signal_strength": "likelihood.strengths",
    "train": "stack.training",
    "yield_ratio": "problems.yields",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"sml_kernel.sbi has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
