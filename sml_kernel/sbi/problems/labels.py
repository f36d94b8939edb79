"""What a class of events stands for: a process, at a point of the nuisance parameters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SHIFT = re.compile(r"\s*([^\s@=,]+)\s*=\s*(\S+)\s*")


@dataclass(frozen=True)
class ParameterPoint:
    """The meaning of a label such as ``"signal"`` or ``"signal@jes=+1,tes=-1"``.

    Attributes
    ----------
    process
        ``"signal"``.
    shifts
        Name and value, in standard deviations, of each nuisance parameter that was moved when
        the events were made, by name; empty for the nominal simulation.
    """

    process: str
    shifts: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, label: str) -> ParameterPoint:
        """Read ``PROCESS`` or ``PROCESS@NUISANCE=VALUE,…``.

        Raises
        ------
        ValueError
            The label is neither, or moves one nuisance twice, or to a value that is not finite.
        """
        process, at, moved = label.partition("@")
        found = [_SHIFT.fullmatch(part) for part in moved.split(",")] if at else []
        shifts = {match[1]: _number(match[2]) for match in found if match}
        if not process.strip() or len(shifts) < len(found) or None in shifts.values():
            raise ValueError(
                f"{label!r} is no class: write PROCESS, or PROCESS@NUISANCE=VALUE,… with values "
                "in standard deviations, as in signal@jes=+1"
            )
        return cls(process.strip(), tuple(sorted((n, v) for n, v in shifts.items() if v)))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
