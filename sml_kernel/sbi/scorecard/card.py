"""The scorecard of a campaign: what was asked of members, classes and ensembles, and the answers.

It is a value: it holds checks and the table of members, and shows itself as text and as HTML. How
many members there are, and how many are missing, is said in every form.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.sbi.scorecard.bands import Bands, Check, figures, member_checks, one_member
from sml_kernel.sbi.scorecard.verdicts import class_checks

if TYPE_CHECKING:
    import pandas as pd

#: Of a figure with more subjects than this, only those outside their band are shown one by one.
_SHOWN = 3
_VERDICTS = {True: "pass", False: "FAIL", None: "–"}
_COLOURS = {True: "#2e7d32", False: "#c62828", None: "#616161"}
_HEADER = ("level", "figure", "of", "value", "band", "", "")
_WIDTHS = (8, 16, 15, 9, 17, 4, 25)  # 100 with the spaces between


@dataclass(frozen=True, eq=False)
class Scorecard:
    """Checks of a campaign at three levels; made by `scorecard`.

    Attributes
    ----------
    checks
        Of members in sum, classes and ensembles.
    members
        A row a member that was judged, with its figures and, as ``inside:NAME``, its verdicts.
    planned, failed
        Numbers of members. The others are pending.
    bands
        What was asked.
    """

    checks: tuple[Check, ...]
    members: pd.DataFrame
    planned: int
    failed: int
    bands: Bands

    @property
    def pending(self) -> int:
        """Members that are planned and neither done nor failed."""
        return self.planned - self.failed - len(self.members)

    @property
    def passed(self) -> bool:
        """Whether no class and no ensemble is outside a band, and no member missing but those few
        that may fail (`Bands.failed`)."""
        return all(each.passed is not False for each in self.checks)

    @property
    def missing(self) -> str:
        """``9,998 of 10,000 members; 2 failed``."""
        text = f"{len(self.members):,} of {self.planned:,} members"
        text += f"; {self.failed:,} failed" if self.failed else ""
        return text + (f"; {self.pending:,} pending" if self.pending else "")

    def member(self, key: str) -> list[Check]:
        """The checks of one member.

        Raises
        ------
        KeyError
            No such member has been judged.
        """
        return one_member(self.members, key, self.bands)

    def table(self) -> pd.DataFrame:
        """A row a check; ``.attrs["members"]`` says how many members there are."""
        import pandas as pd

        frame = pd.DataFrame([asdict(each) for each in self.checks])
        frame.attrs["members"] = self.missing
        return frame

    def rows(self) -> list[dict[str, Any]]:
        """Rows for a record: the whole first, then the checks."""
        counts = {"planned": self.planned, "done": len(self.members), "failed": self.failed}
        whole = {"level": "whole", "name": "members", "passed": self.passed, "note": self.missing}
        return [{**whole, **counts, "pending": self.pending}, *map(asdict, self.checks)]

    def __repr__(self) -> str:
        lines = [self._title(), _line(_HEADER)]
        lines += [
            _line((*cells, _VERDICTS[passed], note)) for *cells, passed, note in self._shown()
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        """A table without a colour of its own but for verdicts, so that it can be read on light and
        on dark."""
        rule = "border-top:1px solid rgba(128,128,128,.35)"
        rows = []
        for *cells, passed, note in self._shown():
            texts = "".join(
                f"<td {_cell(k)}>{html.escape(text)}</td>" for k, text in enumerate(cells)
            )
            note = f"<td style='text-align:left;opacity:.75'>{html.escape(note)}</td>"
            rows.append(f"<tr style='{rule}'>{texts}<td>{_pill(passed)}</td>{note}</tr>")
        names = "".join(
            f"<th {_cell(k)}>{html.escape(name)}</th>" for k, name in enumerate(_HEADER)
        )
        return (
            "<div style='overflow-x:auto'><p style='margin:.3em 0'><b>Scorecard</b> "
            f"{_pill(self.passed)} {html.escape(self.missing)}</p>"
            "<table style='border-collapse:collapse;background:none;color:inherit'>"
            f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )

    def _title(self) -> str:
        return f"Scorecard: {'passed' if self.passed else 'FAILED'}; {self.missing}"

    def _shown(self) -> list[tuple[str, str, str, str, str, bool | None, str]]:
        """Level, figure, subject, value, band, verdict and note of each line."""
        found = []
        order = {each.level: k for k, each in reversed(list(enumerate(self.checks)))}
        names = {(each.level, each.name): k for k, each in reversed(list(enumerate(self.checks)))}

        def place(each: Check) -> tuple[int, int]:
            return order[each.level], names[each.level, each.name]

        for _, group in itertools.groupby(sorted(self.checks, key=place), key=place):
            checks = list(group)
            if len(checks) <= _SHOWN:
                found += [_cells(each) for each in checks]
            else:
                found += _summary(checks)
        return found


def scorecard(
    table: pd.DataFrame,
    ensembles: Iterable[Check] = (),
    *,
    planned: int | None = None,
    bands: Bands | None = None,
) -> Scorecard:
    """Judge a campaign.

    Parameters
    ----------
    table
        A row a member that is done or failed: ``key``, ``numerator``, ``fold``, the columns of
        `metrics.columns`; and ``failure``, the reason of those that failed, missing for others.
    ensembles
        From `ensemble_checks` and `spread_checks`, of as many as there are.
    planned
        Number of members; None: those of the table.

    Raises
    ------
    ValueError
        No member is done, two have one key, or there are more than were planned.
    """
    bands = bands or Bands()
    planned = len(table) if planned is None else planned
    if len(table) > planned or table["key"].duplicated().any():
        raise ValueError(
            f"{len(table):,} members of which {table['key'].nunique():,} differ, {planned:,} were "
            "planned: give each member once"
        )
    lost = table["failure"].notna() if "failure" in table else table["key"].isna()
    members = table[~lost].reset_index(drop=True)
    if not len(members):
        raise ValueError(f"{planned:,} members planned and none is done: there is nothing to judge")
    inside = member_checks(members, bands).add_prefix("inside:")
    checks = [_whole(table, lost, planned, bands), *_in_sum(members, bands)]
    checks += [*class_checks(members, bands), *ensembles]
    judged = members.join(inside)
    return Scorecard(tuple(checks), judged, planned, int(lost.sum()), bands)


def _whole(table: pd.DataFrame, lost: pd.Series, planned: int, bands: Bands) -> Check:
    """Whether all members are there."""
    done, least = len(table) - int(lost.sum()), planned - math.floor(bands.failed * planned)
    reasons = "; ".join(table.loc[lost, "failure"].astype(str).unique()[:2]) if lost.any() else ""
    passed = done >= least and len(table) == planned
    return Check("member", "done", f"{planned:,} planned", done, least, planned, passed, reasons)


def _in_sum(members: pd.DataFrame, bands: Bands) -> list[Check]:
    """The share of members outside each band: for information, as classes are judged by it."""
    found = []
    for each in figures(members, bands):
        if each.absent:
            found.append(Check("member", each.name, "all", math.nan, note=each.absent))
            continue
        outside, subject = int((~each.inside).sum()), f"all {len(members):,}"
        note = f"{outside:,} outside; {bands.level * len(members):,.0f} if good"
        found.append(Check("member", each.name, subject, outside / len(members), note=note))
    return found


def _summary(checks: Sequence[Check]) -> list[tuple[str, str, str, str, str, bool | None, str]]:
    """One line of many subjects, and those outside their band."""
    first = checks[0]
    outside = [each for each in checks if each.passed is False]
    judged = [each for each in checks if each.passed is not None]
    values = np.array([each.value for each in checks])
    finite = values[np.isfinite(values)]
    middle = _number(float(np.median(finite))) if len(finite) else "–"
    verdict = (not outside) if judged else None
    note = f"median; {len(judged) - len(outside):,} of {len(judged):,} pass" if judged else "median"
    if not len(finite):
        note = first.note
    lines = [(first.level, first.name, f"{len(checks):,} of them", middle, "", verdict, note)]
    lines += [_cells(each) for each in outside[:_SHOWN]]
    if len(outside) > _SHOWN:
        more = f"and {len(outside) - _SHOWN:,} more"
        lines.append((first.level, first.name, more, "", "", False, "see table()"))
    return lines


def _cells(check: Check) -> tuple[str, str, str, str, str, bool | None, str]:
    limits = [_number(each) if math.isfinite(each) else "" for each in (check.low, check.high)]
    above = math.nextafter(check.high, math.inf)
    below = len(repr(above)) < len(repr(check.high))  # what is no more than the float before it
    most = f"< {_number(above)}" if below else f"≤ {limits[1]}"
    band = {
        (True, True): most if below and not check.low else f"{limits[0]} … {limits[1]}",
        (True, False): f"≥ {limits[0]}",
        (False, True): most,
        (False, False): "",
    }[bool(limits[0]), bool(limits[1])]
    value = _number(check.value)
    return check.level, check.name, check.subject, value, band, check.passed, check.note


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _line(cells: Sequence[str]) -> str:
    clipped = (
        text if len(text) <= width else text[: width - 1] + "…"
        for text, width in zip(cells, _WIDTHS, strict=True)
    )
    return " ".join(f"{text:<{width}}" for text, width in zip(clipped, _WIDTHS, strict=True))


def _cell(column: int) -> str:
    align = "right" if _HEADER[column] == "value" else "left"
    return f"style='text-align:{align};padding:.15em .7em'"


def _pill(passed: bool | None) -> str:
    return (
        f"<span style='background:{_COLOURS[passed]};color:#fff;border-radius:.6em;"
        f"padding:.05em .6em'>{_VERDICTS[passed]}</span>"
    )
