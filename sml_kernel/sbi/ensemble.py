"""What an ensemble of networks is made of, and how it is trained."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from sml_kernel.sbi.campaign import campaign, plan
from sml_kernel.sbi.campaign.folds import Folds
from sml_kernel.sbi.fit import Fit
from sml_kernel.sbi.problems.problem import Problem
from sml_kernel.sbi.stack.members import Recipe

if TYPE_CHECKING:
    from sml_kernel.workers import Workers


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks that learn the density ratios of a problem, many times over.

    Attributes
    ----------
    problem
        Its classes say what is learnt: each process against the reference, each variation
        (``signal@tes=+1``) against its own process.
    members
        In all: ratios × folds × replicas × initialisations.
    bootstrap
        Each replica sees events with Poisson weights of its own; False: all see the same.
    initialisations
        For each replica. With more than one all replicas begin from the same ones, and the
        scorecard tells the two sources of spread apart.
    folds
        An event is scored by members of its fold, which never saw it; at least 2.
    reference
        A class; None: the last process.
    hidden, activation, batch, epochs, patience, loss
        See `members.Recipe`; ``alice`` and ``rolr`` want a problem with joint densities.
    learning_rate
        Of Adam.
    campaign
        Another number has other folds, bootstrap weights and initialisations.
    stack
        Members trained and stored as one; None: chosen from their number.

    Examples
    --------
    >>> problem = sbi.draw(sbi.GaussianShift(1.0), events=25_000)
    >>> fit = sbi.Ensemble(problem, members=40).fit(folder="runs/sbi")
    """

    problem: Problem
    members: int
    _: KW_ONLY
    bootstrap: bool = True
    initialisations: int = 1
    folds: int = 2
    reference: str | None = None
    hidden: tuple[int, ...] = (32, 32)
    activation: str = "ReLU"
    batch: int = 512
    epochs: int = 100
    patience: int = 5
    loss: str = "bce"
    learning_rate: float = 1e-3
    campaign: int = 0
    stack: int | None = None

    @property
    def design(self) -> plan.Design:
        """Its axes.

        Raises
        ------
        PlanError
            The members cannot be dealt out evenly, or the classes give no ratio.
        """
        pairs = plan.pairs_of(self.problem.classes, self.reference)
        return plan.design(pairs, self.members, self.bootstrap, self.initialisations, self.folds)

    def fit(
        self,
        workers: Workers | None = None,
        folder: str | os.PathLike[str] | None = None,
        *,
        progress: bool = True,
    ) -> Fit:
        """Train what is not trained yet.

        Parameters
        ----------
        workers
            Of `launch`; None: in this process.
        folder
            Where a campaign is begun or, if it is of this ensemble, taken up again; workers must
            see it. None: a new one below ``runs``.
        progress
            Show a bar.

        Raises
        ------
        PlanError, RecordError
            Members that cannot be dealt out; a folder that holds something else.
        CampaignError
            Stacks could not be trained; all others have been, and their members are kept.
        """
        recipe = Recipe(
            self.hidden, self.activation, self.batch, self.epochs, self.patience, self.loss
        )
        folds = Folds(self.folds, campaign=self.campaign)
        stack = self.stack or max(16, min(plan.STACK, -(-self.members // _STACKS)))
        made = campaign.prepare(
            self.problem, self.design, recipe, folds, self.learning_rate, stack, folder
        )
        campaign.train(made, workers, progress=progress)
        return Fit(made, workers)


_STACKS = 16  # at least, where members are few: more workers than two shall have something to do
