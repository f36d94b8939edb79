"""The `Problem`: weighted events of several classes, checked when they come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sml_kernel.sbi.problems import checks
from sml_kernel.sbi.problems.labels import ParameterPoint
from sml_kernel.sbi.problems.origins import InputError, Origin
from sml_kernel.sbi.problems.yields import Yield

if TYPE_CHECKING:
    from torch import Tensor

    from sml_kernel.sbi.problems.exact import Exact


@dataclass(frozen=True, eq=False)
class Problem:
    """Weighted events of K classes in d features. Build it with `of`, or with `read_problem`.

    Attributes
    ----------
    features
        [N, d] float32, all finite.
    labels
        [N] int64 index into `classes`.
    weights
        [N] float64 in the unit of the yields; single ones may be negative, the sum over a class
        may not.
    event_ids
        [N] int64. Which simulated event this is: systematic variations of one event, in
        different classes, have the same. Within a class they are unique. A selection keeps them.
    feature_names, classes
        d and K names. A class is a process, or a process at a point of the nuisance parameters:
        see `ParameterPoint`.
    exact
        The densities that the events were drawn from, where they are known.
    joint
        [N, K] float64 ln p_c(x, z) of each event and class c, with z what the simulator knows of
        the event; up to what is common to all classes, as the weights of a generator at each point
        are. None: not known. With it networks may learn by more than classes (`stack.losses`).
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    event_ids: np.ndarray
    feature_names: tuple[str, ...]
    classes: tuple[str, ...]
    exact: Exact | None = None
    joint: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        features: np.ndarray,
        labels: Sequence[str] | np.ndarray,
        weights: np.ndarray | None = None,
        *,
        classes: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        event_ids: np.ndarray | None = None,
        exact: Exact | None = None,
        joint: np.ndarray | None = None,
        origin: Origin | None = None,
    ) -> Problem:
        """Check and copy arrays.

        Parameters
        ----------
        features
            [N, d], or [N] for one feature; rounded to float32.
        labels
            [N] class of each event by name, or its index into `classes`.
        weights
            [N]; None is 1 each.
        classes
            Names, in the order wanted; None takes those found, sorted. All must have events.
        feature_names
            d names; None is ``x0``, ``x1``, ….
        event_ids
            [N] whole numbers; None numbers the rows from 0.
        exact
            The densities that the events were drawn from.
        joint
            [N, K], see above; columns in the order of `classes`, which must be given.
        origin
            Where the rows came from, for messages; None is arrays.

        Raises
        ------
        InputError
            Shapes do not agree; a value is nan or infinite; a class is unknown, malformed, without
            events, or its weights do not sum to more than zero; an event comes twice in a class.
        """
        origin = origin or Origin()
        table = np.asarray(features)
        table = table[:, None] if table.ndim == 1 else table
        names = checks.feature_names(table, feature_names)
        rows = len(table)
        columns = {
            "labels": np.asarray(labels),
            "weights": np.ones(rows) if weights is None else np.asarray(weights),
            "event_ids": np.arange(rows) if event_ids is None else np.asarray(event_ids),
        }
        for name, column in columns.items():
            if column.shape != (rows,):
                raise InputError(f"{name} has shape {column.shape} for {rows} events: give [N]")
        known, index = checks.indexed(columns["labels"], classes, origin)
        if joint is not None:
            joint = checks.joint(np.asarray(joint), rows, classes, origin)
        problem = cls(
            checks.finite(table, names, "float32", origin),
            index,
            checks.finite(columns["weights"][:, None], (origin.weight,), "float64", origin)[:, 0],
            checks.whole(columns["event_ids"]),
            names,
            known,
            exact,
            joint,
        )
        checks.check_classes(problem.labels, problem.weights, problem.event_ids, known, origin)
        for array in (problem.features, problem.labels, problem.weights, problem.event_ids):
            array.flags.writeable = False
        return problem

    @property
    def points(self) -> tuple[ParameterPoint, ...]:
        """[K] what each class stands for."""
        return tuple(ParameterPoint.parse(label) for label in self.classes)

    def yields(self) -> dict[str, Yield]:
        """Expected events of each class, their Monte Carlo error, and how many are negative."""
        return {
            name: Yield.of(self.weights[self.labels == index])
            for index, name in enumerate(self.classes)
        }

    def select(self, cut: Callable[[Mapping[str, np.ndarray]], np.ndarray]) -> Problem:
        """The events that pass a cut, as in ``select(lambda x: (x["pt"] > 30) & (x["m"] < 90))``.

        Parameters
        ----------
        cut
            Feature name → values [N] goes in; True [N] where an event is kept comes out.

        Returns
        -------
        Problem
            Its `yields` are those after the cut. It has no `exact`: densities of selected events
            are normalised over the region that was kept.

        Raises
        ------
        InputError
            `cut` gives something else than booleans [N], or leaves a class without events or with
            weights that do not sum to more than zero.
        """
        keep = np.asarray(cut(dict(zip(self.feature_names, self.features.T, strict=True))))
        if keep.dtype != bool or keep.shape != self.labels.shape:
            raise InputError(
                f"the cut gave {keep.dtype} {list(keep.shape)}; give booleans [{len(self.labels)}]"
            )
        return self._subset(keep, self.labels[keep], self.classes, "events after the cut")

    def of_class(self, name: str) -> Problem:
        """The events of one class."""
        if name not in self.classes:
            raise InputError(f"there is no class {name!r}; there are {', '.join(self.classes)}")
        keep = self.labels == self.classes.index(name)
        return self._subset(keep, np.zeros(keep.sum(), "int64"), (name,), "events")

    def _subset(
        self, keep: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], called: str
    ) -> Problem:
        columns = np.array([self.classes.index(name) for name in classes])
        return Problem.of(
            self.features[keep],
            labels,
            self.weights[keep],
            classes=classes,
            feature_names=self.feature_names,
            event_ids=self.event_ids[keep],
            joint=None if self.joint is None else self.joint[np.ix_(keep, columns)],
            origin=Origin(files=(called,)),
        )

    def balanced_weights(self) -> np.ndarray:
        """[N] weights scaled to sum to N/K in each class: any two classes are balanced (CARL)."""
        totals = np.bincount(self.labels, self.weights)
        return self.weights * (len(self.labels) / len(totals) / totals)[self.labels]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies to train on: features [N, d] float32, labels [N] int64, and the balanced
        weights [N] float32."""
        import torch

        weights = self.balanced_weights().astype("float32")
        return torch.tensor(self.features), torch.tensor(self.labels), torch.tensor(weights)

    def __repr__(self) -> str:
        rows, width = self.features.shape
        lines = [f"Problem: {rows:,} events, {width} features, {len(self.classes)} classes"]
        lines += [
            f"  {name}: {y.events:,} events, ν = {y.expected:.6g} ± {y.error:.2g}, "
            f"{y.negative_fraction:.1%} negative, {y.effective_events:,.0f} effective"
            for name, y in self.yields().items()
        ]
        return "\n".join(lines)
