"""The table of jobs, and how it looks as text and as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: Columns of ``workers.jobs()``. ``expected_start`` is a local time, ``time_left`` a Timedelta,
#: ``workers`` counts the connected ones; NaT or None where Slurm does not say.
COLUMNS = (
    "job_id",
    "name",
    "state",
    "reason",
    "expected_start",
    "nodes",
    "node_list",
    "time_left",
    "workers",
)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table of these columns and their types, also without rows."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(
        {
            "expected_start": "datetime64[ns]",
            "time_left": "timedelta64[ns]",
            "nodes": "int64",
            "workers": "int64",
        }
    )


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The same for the eye: blanks where there is nothing, times without nanoseconds."""
    import pandas as pd

    def clock(value: Any) -> str:
        return "" if pd.isna(value) else str(value).removeprefix("0 days ").partition(".")[0]

    times = {name: frame[name].map(clock) for name in ("expected_start", "time_left")}
    return frame.assign(**times)
