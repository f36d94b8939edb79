"""What the arrays of a problem must fulfil, each breach with its place and its remedy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sml_kernel.sbi.problems.labels import ParameterPoint
from sml_kernel.sbi.problems.origins import InputError, Origin


def feature_names(table: np.ndarray, given: Sequence[str] | None) -> tuple[str, ...]:
    """The d names of the features of [N, d], all different; None gives ``x0``, ``x1``, …."""
    if table.ndim != 2 or not table.shape[1]:
        raise InputError(f"features have shape {table.shape}: give [N, d], d at least 1")
    names = tuple(given) if given is not None else tuple(f"x{i}" for i in range(table.shape[1]))
    if len(names) != table.shape[1] or len(set(names)) != len(names):
        raise InputError(f"{table.shape[1]} features need as many different names, not {names}")
    return names


def finite(table: np.ndarray, names: tuple[str, ...], dtype: str, origin: Origin) -> np.ndarray:
    """A copy of [N, d] as `dtype`, or the error for the first value that is not finite there."""
    if table.dtype.kind not in "fiub":
        raise InputError(
            f"{origin.of_rows(np.arange(0))}, columns {', '.join(names)}: {table.dtype} "
            "is not a type of real numbers; convert it"
        )
    with np.errstate(over="ignore"):
        copy = np.array(table, dtype=dtype, order="C")
    strange = ~np.isfinite(copy)
    if strange.any():
        row, column = (int(i) for i in np.argwhere(strange)[0])
        value = table[row, column]
        what = "does not fit float32" if np.isfinite(value) else "is not a finite number"
        raise origin.wrong(row, names[column], f"{value} {what}; repair it or leave the event out")
    return copy


def joint(
    table: np.ndarray, rows: int, classes: Sequence[str] | None, origin: Origin
) -> np.ndarray:
    """A copy of joint log densities [N, K], read-only."""
    if classes is None:
        raise InputError("joint has a column for each class: name them in order, classes=[…]")
    if table.shape != (rows, len(classes)):
        raise InputError(
            f"joint has shape {list(table.shape)} for {rows} events of {len(classes)} classes: "
            "give [N, K]"
        )
    copy = finite(table, tuple(f"joint of {name}" for name in classes), "float64", origin)
    copy.flags.writeable = False
    return copy


def whole(ids: np.ndarray) -> np.ndarray:
    """Event numbers [N] as int64."""
    if ids.dtype.kind not in "iu" or (ids.dtype == np.uint64 and (ids > 2**63 - 1).any()):
        raise InputError(f"event_ids are {ids.dtype}: give whole numbers that fit int64")
    return ids.astype("int64")


def indexed(
    labels: np.ndarray, classes: Sequence[str] | None, origin: Origin
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes and the index [N] of each event's."""
    if labels.dtype.kind in "iu":
        if classes is None:
            raise InputError("labels are numbers: give their names as classes=[…], or use names")
        outside = (labels < 0) | (labels >= len(classes))
        index = labels.astype("int64")
    else:
        named = np.array([isinstance(label, str) for label in labels], bool)
        if not named.all():
            row = int(named.argmin())
            raise origin.wrong(
                row, origin.label, f"{labels[row]!s} is no name of a class; use text"
            )
        found, index = np.unique(labels.astype(str), return_inverse=True)
        classes = [str(name) for name in found] if classes is None else classes
        places = {name: place for place, name in enumerate(classes)}
        index = np.array([places.get(str(name), -1) for name in found], "int64")[index]
        outside = index < 0
    if outside.any():
        row = int(outside.argmax())
        what = f"{labels[row]!s} is not among the classes {', '.join(classes)}"
        raise origin.wrong(row, origin.label, f"{what}; add it to classes or leave the event out")
    if len(set(classes)) < len(classes):
        raise InputError(f"classes repeat a name: {', '.join(classes)}")
    return tuple(classes), index


def check_classes(
    labels: np.ndarray,
    weights: np.ndarray,
    event_ids: np.ndarray,
    classes: Sequence[str],
    origin: Origin,
) -> None:
    """Raise the error for the first class that cannot be used.

    Its name is no `ParameterPoint`, or says what another says; it has no events; its weights do
    not sum to more than zero; or an event comes twice in it.
    """
    points: dict[ParameterPoint, str] = {}
    for index, name in enumerate(classes):
        rows = np.flatnonzero(labels == index)
        try:
            point = ParameterPoint.parse(name)
        except ValueError as error:
            if len(rows):
                raise origin.wrong(int(rows[0]), origin.label, str(error)) from None
            raise InputError(str(error)) from None
        if points.setdefault(point, name) != name:
            raise InputError(f"classes {points[point]!r} and {name!r} are the same; join them")
        where = f"{origin.of_rows(rows)}, column {origin.weight!r}: class {name!r}"
        if not len(rows):
            raise InputError(f"{where} has no events; add some or take it out of the classes")
        total = weights[rows].sum()
        if total <= 0:
            raise InputError(
                f"{where} has weights that sum to {total:.6g} over {len(rows)} events; single "
                "negative weights may stay, but a sum above zero is needed: add events or join "
                "classes"
            )
        _check_unique(event_ids[rows], rows, name, origin)


def _check_unique(ids: np.ndarray, rows: np.ndarray, name: str, origin: Origin) -> None:
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(again):
        place = order[again + 1].min()
        what = f"event {ids[place]} of class {name!r} comes twice; leave one out or number it anew"
        raise origin.wrong(int(rows[place]), origin.event, what)
