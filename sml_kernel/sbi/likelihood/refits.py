"""What finite training costs: one sample fitted again with the ratios of each replica."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sml_kernel.sbi.likelihood.estimates import estimate
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.problems.origins import InputError


@dataclass(frozen=True, eq=False)
class Refits:
    """Estimates by each replica of the networks.

    Attributes
    ----------
    values
        [R] strengths; nan where a fit failed.
    failed
        How many did; they are not in `mean` and `sigma`.
    mean, sigma
        Of the strengths, σ with R − 1. For the nuisance `spread` of a likelihood that uses the
        mean ratio of M networks, what is due to initialisation shrinks as 1/√M; what is due to
        the training sample does not, since all replicas are made from it.
    """

    values: np.ndarray
    failed: int
    mean: float
    sigma: float

    def rows(self) -> list[dict[str, Any]]:
        """A plain row a replica, for records of kind ``refit``."""
        return [{"replica": k, "value": float(value)} for k, value in enumerate(self.values)]


def refit(
    likelihood: Likelihood,
    replicas: np.ndarray,
    *,
    allow_failed: bool = False,
    progress: bool = True,
) -> Refits:
    """Fit the same events with each replica's ratios.

    Parameters
    ----------
    likelihood
        Of the observed events, or of what is expected (`toys.asimov`), which gives
        the spread at a chosen strength and has no fluctuation of its own.
    replicas
        [R, C, N] nominal ratios of these events; variations stay those of the likelihood.
    allow_failed
        Whether replicas without a valid fit may be left out.
    progress
        Whether to show a bar.

    Raises
    ------
    InputError
        Shapes do not agree, there are less than two replicas, or fits fail that may not.
    """
    wanted = likelihood.ratios.ratio.shape
    if np.ndim(replicas) != 3 or np.shape(replicas)[1:] != wanted or len(replicas) < 2:
        raise InputError(f"replicas have shape {np.shape(replicas)}: give [R > 1, {wanted}]")
    model = replace(likelihood, spread=0.0)
    values, reasons = np.full(len(replicas), np.nan), []
    for k, ratio in enumerate(tqdm(replicas, desc="refits", unit="fit", disable=not progress)):
        ratios = replace(likelihood.ratios, ratio=np.asarray(ratio))
        found = estimate(replace(model, ratios=ratios), errors=False)
        values[k] = found.value
        if not found.valid:
            reasons.append(f"replica {k}: {found.reason}")
    if reasons and (not allow_failed or len(replicas) - len(reasons) < 2):
        raise InputError(
            f"{len(reasons)} of {len(replicas)} replicas have no fit, first {reasons[0]}; "
            "mend them, or say allow_failed=True"
        )
    return Refits(values, len(reasons), float(np.nanmean(values)), float(np.nanstd(values, ddof=1)))
