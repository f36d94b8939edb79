"""Wall times as people and Slurm write them: ``[D-]HH:MM:SS``."""

from __future__ import annotations

import re

_PATTERN = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")


def parse(text: str) -> int:
    """Seconds of a wall time ``[D-]HH:MM:SS``.

    Slurm's shorter forms are refused: it reads ``"30:00"`` as half an hour, many people do not.

    Raises
    ------
    ValueError
        Another form, or no time at all.
    """
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no wall time: write it as HH:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s == 0:
        raise ValueError(f"a wall time of {text!r} is none: ask for more than zero")
    return total_s


def text(seconds: int) -> str:
    """The wall time of so many seconds as Slurm writes it, ``HH:MM:SS`` below a day."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"
