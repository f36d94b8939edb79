"""The plan of an ensemble: a table of its members, each named by a hash of all that defines it.

The axes are process × nuisance (±) × replica × initialisation × fold. Nominal processes learn their
ratio to one reference class; a variation ``signal@tes=+1`` learns its ratio to its own nominal
``signal``. Members are dealt into stacks, which are trained and stored as one: the deal is part of
the plan, so that a campaign that is taken up again does exactly what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sml_kernel.sbi.problems.labels import ParameterPoint

if TYPE_CHECKING:
    import pandas as pd

#: Members of a stack, where nothing else is asked for: some ten seconds of training each.
STACK = 250


class PlanError(ValueError):
    """An ensemble that cannot be planned; the message says what to ask for instead."""


@dataclass(frozen=True)
class Design:
    """How many members there are, and in what they differ.

    Attributes
    ----------
    pairs
        Names of numerator and reference, of each ratio that is learnt: `pairs_of`.
    replicas
        Of the bootstrap; 0: none, every event once.
    initialisations
        For each replica. With one, each replica starts from a network of its own; with more, all
        replicas start from the same ones (crossed), so that the two sources of spread can be told
        apart.
    folds
        Members of each, see `folds.Folds`.
    """

    pairs: tuple[tuple[str, str], ...]
    replicas: int
    initialisations: int
    folds: int

    @property
    def members(self) -> int:
        return len(self.pairs) * self.folds * max(self.replicas, 1) * self.initialisations


def pairs_of(classes: Sequence[str], reference: str | None = None) -> tuple[tuple[str, str], ...]:
    """Numerator and reference of every ratio that a problem's classes ask for.

    Parameters
    ----------
    reference
        A nominal class; None: the last one.

    Raises
    ------
    PlanError
        The reference is not among the nominal classes, a variation has no nominal class, or there
        is nothing to learn.
    """
    nominal = [name for name in classes if not ParameterPoint.parse(name).shifts]
    reference = reference or (nominal[-1] if nominal else "")
    if reference not in nominal:
        raise PlanError(f"the reference {reference!r} is none of {', '.join(nominal)}")
    pairs = [(name, reference) for name in nominal if name != reference]
    for name in classes:
        point = ParameterPoint.parse(name)
        if point.shifts:
            if point.process not in nominal:
                raise PlanError(f"{name!r} is a variation of {point.process!r}: add that class")
            pairs.append((name, point.process))
    if not pairs:
        raise PlanError(f"a ratio is of two classes, and there is {', '.join(classes)} alone")
    return tuple(pairs)


def design(
    pairs: tuple[tuple[str, str], ...],
    members: int,
    bootstrap: bool,
    initialisations: int,
    folds: int,
) -> Design:
    """So many members, in equal parts.

    Raises
    ------
    PlanError
        They cannot be dealt out evenly; names the nearest numbers that can.
    """
    if initialisations < 1:
        raise PlanError(f"at least 1 initialisation, not {initialisations}")
    if not bootstrap and initialisations != 1:
        raise PlanError("without the bootstrap every member is an initialisation: leave it at 1")
    share = len(pairs) * folds * initialisations
    each, rest = divmod(members, share)
    if rest or each < 1:
        near = sorted({max(each, 1) * share, (each + 1) * share})
        raise PlanError(
            f"{members} members are not whole: {len(pairs)} ratios × {folds} folds × "
            f"{initialisations} initialisations come in {share}: ask for "
            f"{' or '.join(f'{number:,}' for number in near)}"
        )
    if bootstrap:
        return Design(pairs, each, initialisations, folds)
    return Design(pairs, 0, each, folds)


def table(made: Design, definition: Mapping[str, Any], stack: int = STACK) -> pd.DataFrame:
    """A row a member: key, stack, numerator, reference, fold, replica, initialisation, seed.

    Parameters
    ----------
    definition
        What else defines a member, alike for all: problem, recipe, learning rate, campaign.
    stack
        Members in one, at most. All of a stack have the same pair and fold, and so the same events.

    Returns
    -------
    pandas.DataFrame
        In order of stacks. `replica` is −1 where every event counts once.
    """
    import pandas as pd

    rows, number = [], 0
    for fold in range(made.folds):
        for pair in made.pairs:
            of_pair = [
                _row(made, definition, pair, fold, replica, start)
                for replica in range(max(made.replicas, 1))
                for start in range(made.initialisations)
            ]
            for place, row in enumerate(of_pair):
                rows.append({"stack": number + place // stack, **row})
            number += -(-len(of_pair) // stack)
    return pd.DataFrame(rows)


def _row(
    made: Design,
    definition: Mapping[str, Any],
    pair: tuple[str, str],
    fold: int,
    replica: int,
    start: int,
) -> dict[str, Any]:
    axes = {
        "numerator": pair[0],
        "reference": pair[1],
        "fold": fold,
        "replica": replica if made.replicas else -1,
        "initialisation": start,
    }
    crossed = made.initialisations > 1 or not made.replicas
    begins = [pair[0], fold, start if crossed else [replica, start]]
    seed = int(_hash([definition.get("campaign"), begins])[:12], 16)
    return {"key": _hash([definition, axes, seed]), **axes, "seed": seed}


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
