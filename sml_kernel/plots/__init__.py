"""Figures from records and named results. Compute returns values; this draws them.

Every function gives a HoloViews object: a notebook shows it, ``+`` puts two side by side,
``hvplot.save`` writes it to a file. JavaScript is put into the notebook itself, never loaded from
the network, so figures are there offline and after a reload.
"""

from sml_kernel.plots.ensembles import against_exact, losses, reliability, spread
from sml_kernel.plots.live import activity
from sml_kernel.plots.measurements import coverage, likelihood_scan, pulls, variance_components
from sml_kernel.plots.physics import efficiency, event, score_distribution, stages, training
from sml_kernel.plots.reweighting import closure
from sml_kernel.plots.services import load
from sml_kernel.plots.studies import scaling, targets

__all__ = [
    "activity",
    "against_exact",
    "closure",
    "coverage",
    "efficiency",
    "event",
    "likelihood_scan",
    "load",
    "losses",
    "pulls",
    "reliability",
    "scaling",
    "score_distribution",
    "spread",
    "stages",
    "targets",
    "training",
    "variance_components",
]
