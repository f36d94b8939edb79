"""What has been trained, as one value: its ratios, how good they are, and what they measure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sml_kernel import records
from sml_kernel.sbi.campaign import judging, scoring
from sml_kernel.sbi.campaign.campaign import Campaign, Progress
from sml_kernel.sbi.campaign.scoring import Combined
from sml_kernel.sbi.likelihood.intervals import ONE_SIGMA

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from sml_kernel.sbi.inference import Inference
    from sml_kernel.sbi.likelihood.coverage import Coverage
    from sml_kernel.sbi.likelihood.ratios import Rates
    from sml_kernel.sbi.likelihood.strengths import Strengths
    from sml_kernel.sbi.likelihood.workspace import ControlRegions
    from sml_kernel.sbi.scorecard.bands import Bands
    from sml_kernel.sbi.scorecard.card import Scorecard
    from sml_kernel.workers import Workers


class MissingError(RuntimeError):
    """Members are pending or failed, and it was not said that the others will do."""


def open_fit(folder: str | os.PathLike[str], workers: Workers | None = None) -> Fit:
    """The campaign in a folder, however far it is.

    Raises
    ------
    RecordError
        There is none.
    """
    run = records.Run(Path(folder))
    if (kind := run.provenance()["kind"]) != "ensemble":
        raise records.RecordError(f"{folder} holds a run of kind {kind!r}, not an ensemble")
    return Fit(Campaign(run), workers)


@dataclass(frozen=True)
class Fit:
    """What has been trained; `ensemble.Ensemble.fit` and `open_fit` give it.

    Attributes
    ----------
    campaign
        The folder.
    workers
        That score events; None: this process.
    """

    campaign: Campaign
    workers: Workers | None = None

    @property
    def folder(self) -> Path:
        return self.campaign.folder

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Numerator and reference of each ratio."""
        return tuple((a, b) for a, b in self.campaign.parameters["design"]["pairs"])

    def progress(self) -> Progress:
        """planned = done + failed + pending, by the files."""
        return self.campaign.progress()

    def members(self, *, judged: bool = True, progress: bool = True) -> pd.DataFrame:
        """A row a member: its place in the plan, how it ended and, if judged, its figures.

        Judging is done once, on the events of the fold that a member never saw (`metrics.judge`).
        """
        if not judged:
            return self.campaign.members()
        return judging.judge(self.campaign, self.workers, progress=progress)

    def ratio(
        self,
        x: np.ndarray | None = None,
        numerator: str | None = None,
        *,
        how: str = "arithmetic",
        allow_missing: bool = False,
        progress: bool = True,
    ) -> Combined:
        """The ensemble's density ratio, with its spread over members.

        Parameters
        ----------
        x
            [N, D] features, scored by all members; None: the events of the problem, each scored by
            the members that never saw it.
        numerator
            A class; None where there is one ratio only.
        how
            ``"arithmetic"`` (keeps E_ref[r̂]), ``"geometric"`` or ``"median"``.
        allow_missing
            Use the members that are done if others are pending or failed.

        Raises
        ------
        MissingError
            Members are missing.
        ValueError
            No such numerator.
        """
        pair = self._pair(numerator)
        if not allow_missing:
            self._complete(pair)
        where = self.campaign, pair
        if x is None:
            return scoring.out_of_fold(*where, self.workers, how=how, progress=progress)
        return scoring.of_events(*where, x, self.workers, how=how, progress=progress)

    def servable(
        self, name: str, *, how: str = "arithmetic", allow_missing: bool = False
    ) -> dict[str, Any]:
        """What `sml_kernel.serving` serves: events in, the ensemble's ratio and its spread out.

        [N] each of one ratio, [N, R] of R in the order of `pairs`. All members answer one request.

        Parameters
        ----------
        how, allow_missing
            As for `ratio`; not the median.

        Raises
        ------
        MissingError
            Members are missing.
        """
        from sml_kernel.sbi import served

        if not allow_missing:
            for pair in self.pairs:
                self._complete(pair)
        return served.ensemble(self, how)

    def scorecard(
        self,
        *,
        how: str = "arithmetic",
        two_sample: bool = True,
        bands: Bands | None = None,
        allow_missing: bool = False,
        progress: bool = True,
    ) -> Scorecard:
        """Judge members, classes and ensembles, pass or fail; recorded below ``scorecards``.

        Parameters
        ----------
        how
            Of the ensemble's ratio, see `ratio`.
        two_sample
            Train a classifier to tell the numerator from the reweighted reference.
        bands
            What is asked; None: `bands.Bands` as they stand.
        allow_missing
            Judge what is done if members are pending or failed; the card says so.

        Raises
        ------
        MissingError
            Members are missing.
        """
        from sml_kernel.sbi import assessment

        return assessment.assess(
            self,
            how=how,
            two_sample=two_sample,
            bands=bands,
            allow_missing=allow_missing,
            progress=progress,
        )

    def infer(
        self,
        data: np.ndarray,
        *,
        weights: np.ndarray | None = None,
        strengths: Strengths | None = None,
        mode: str = "both",
        rates: Rates | None = None,
        control: ControlRegions | None = None,
        intervals: str = "wilks",
        level: float = ONE_SIGMA,
        spread: float | None = None,
        toys: int = 1000,
        seed: int = 0,
        allow_missing: bool = False,
        progress: bool = True,
    ) -> Inference:
        """Measure a signal strength in data.

        Parameters
        ----------
        data, weights
            [N, D] features of observed events, and [N] weights if they have any.
        strengths
            Coefficient of each process; None: μ multiplies the first class of the problem.
        mode
            ``shape``, ``yield`` or ``both``.
        rates
            Of the processes; None: those of the problem, with their Monte Carlo errors.
        control
            Binned control regions that share nuisances.
        intervals
            ``wilks``, or ``neyman`` for both side by side; toys are drawn from the problem's
            events of the reference.
        level, toys, seed
            Of the intervals.
        spread
            σ of the estimate that the networks bring, a nuisance; None: from refits with 50
            replicas; 0 leaves it out.
        allow_missing
            As for `ratio`; the result says so.

        Raises
        ------
        MissingError
            Members are missing.
        InputError
            Data, variations or names that do not fit.
        """
        from sml_kernel.sbi import inference

        return inference.infer(
            self,
            data,
            weights=weights,
            strengths=strengths,
            mode=mode,
            rates=rates,
            control=control,
            intervals=intervals,
            level=level,
            spread=spread,
            toys=toys,
            seed=seed,
            allow_missing=allow_missing,
            progress=progress,
        )

    def coverage(
        self,
        at: float,
        *,
        events: int | None = None,
        strengths: Strengths | None = None,
        mode: str = "both",
        rates: Rates | None = None,
        spread: float | None = None,
        toys: int = 1000,
        seed: int = 0,
        allow_missing: bool = False,
        progress: bool = True,
    ) -> Coverage:
        """How often the interval of this ensemble holds the true strength; recorded.

        Toys are drawn from the campaign's own events by their labels and weights, and fitted with
        ratios learned out of fold. `measure_coverage` trains ensembles anew: that of the procedure.

        Parameters
        ----------
        at
            The true strength.
        events
            Of each toy in mode ``shape``; in the others Poisson about the yields.
        strengths, mode, rates, allow_missing
            As for `infer`.
        spread
            σ of the estimate that the networks bring, as `infer` found it; None: without.
        toys, seed
            How many, and of what random stream.

        Raises
        ------
        MissingError
            Members are missing.
        """
        from sml_kernel.sbi import verification

        return verification.cover(
            self,
            at,
            events=events,
            strengths=strengths,
            mode=mode,
            rates=rates,
            spread=spread,
            toys=toys,
            seed=seed,
            allow_missing=allow_missing,
            progress=progress,
        )

    def _pair(self, numerator: str | None) -> tuple[str, str]:
        found = [pair for pair in self.pairs if numerator in (None, pair[0])]
        if len(found) != 1:
            known = ", ".join(each for each, _ in self.pairs)
            raise ValueError(f"which ratio? {numerator!r} is not one of: {known}")
        return found[0]

    def _complete(self, pair: tuple[str, str]) -> None:
        members = self.campaign.members()
        mine = members[(members.numerator == pair[0]) & (members.reference == pair[1])]
        missing = mine[mine.status != "done"]
        if len(missing):
            counts = ", ".join(f"{n} {s}" for s, n in missing["status"].value_counts().items())
            raise MissingError(
                f"{len(missing):,} of {len(mine):,} members of {' / '.join(pair)} are missing "
                f"({counts}): fit again for those that are pending, or say allow_missing=True"
            )

    def __repr__(self) -> str:
        return f"Fit: {self.progress()}; {len(self.pairs)} ratios, in {self.folder}"
