"""How a service bears load, from the record of a sweep (`serving.sweeping`)."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, final

import pandas as pd

from sml_kernel import records

KIND = "load"
#: What makes a point, besides the repeat.
AXES = ("transport", "concurrency", "rate")
#: Where the mean time of a request goes; they add up to it.
PARTS = ("client", "network", "queue", "compute", "server")


@final
class Load:
    """A sweep: whole, or as far as it came.

    Attributes
    ----------
    run
        Its record: a row ``load`` a point and repeat, rows ``direct`` of the model called here,
        rows ``perf_analyzer`` of closed loops measured by that.
    """

    def __init__(self, run: records.Run) -> None:
        self.run = run

    def points(self) -> pd.DataFrame:
        """A row a point and repeat, as measured.

        ``transport``, ``concurrency``, ``rate`` (requests/s of an open loop; 0: closed) and
        ``repeat``; ``throughput_s`` (answers a second), ``p50_us``, ``p90_us``, ``p99_us`` and
        ``mean_us`` of a request; its parts ``client_us`` (processor time of the thread that asks),
        ``queue_us`` and ``compute_us`` (Triton's statistics), ``server_us`` (the rest of its time
        in the server) and ``network_us`` (all that is left: transfer, and waiting for the client's
        interpreter); ``mean_batch``; ``answered``, ``failed``, ``others`` (requests of somebody
        else that the server answered meanwhile); ``processes`` that asked, ``client_cores`` that
        each used, ``saturated`` (whether they and not the service are what was measured).
        """
        return self.run.rows(KIND)

    def table(self) -> pd.DataFrame:
        """A row a point: medians over repeats, and ``throughput_low``, ``_high``, the quartiles.

        ``p50_low`` and ``p50_high`` likewise, in µs. Where perf_analyzer measured the same, the
        medians of what it says have ``analyzer_`` before them.
        """
        points = self.points()
        if points.empty:
            return points
        groups = points.groupby(list(AXES))
        table = groups.median(numeric_only=True).drop(columns=["repeat", "time"])
        for name, column in (("throughput", "throughput_s"), ("p50", "p50_us")):
            for end, share in (("low", 0.25), ("high", 0.75)):
                table[f"{name}_{end}"] = groups[column].quantile(share)
        table["failed"] = groups.failed.sum()
        table["saturated"] = groups.saturated.any()
        compared = self.run.rows("perf_analyzer")
        if len(compared):
            theirs = compared.groupby(list(AXES)).median(numeric_only=True)
            theirs = theirs.drop(columns=["repeat", "time"])
            table = table.join(theirs.add_prefix("analyzer_"))
        return table.reset_index()

    def direct(self) -> pd.Series:
        """Seconds of each call of the model in this process; empty if none was given."""
        rows = self.run.rows("direct")
        return rows.seconds if len(rows) else pd.Series(dtype=float)

    def plot(self) -> Any:
        """Its figures, `sml_kernel.plots.load`, which is a layer above and so named by a string."""
        return importlib.import_module("sml_kernel.plots").load(self)

    def __repr__(self) -> str:
        asked = self.run.provenance()["parameters"]
        points = len(asked["concurrency"]) + len(asked["rates"])
        planned = asked["repeats"] * len(asked["transports"]) * points
        done = len(self.points())
        return f"<Load of {asked['name']!r}: {done} of {planned} points, {self.run.folder}>"


def open_load(folder: str | os.PathLike[str]) -> Load:
    """The sweep in a folder.

    Raises
    ------
    ValueError
        The folder holds no sweep.
    """
    run = records.Run(Path(folder))
    kind = run.provenance()["kind"]
    if kind != KIND:
        raise ValueError(f"{folder} holds a run of kind {kind!r}, not a sweep")
    return Load(run)
