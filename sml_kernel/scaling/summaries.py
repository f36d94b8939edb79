"""From rows of steps to throughput, efficiency, and the reason for what is lost.

Throughput of a point is the work of all its steps over their time. Efficiency is throughput a rank
over that of the fewest ranks (`sml_kernel.scaling.laws.efficiency`). What is lost is told apart by
phase, exactly: with t(n) the seconds a step takes and w(n) the work a rank does in it,

    1 − efficiency = Σ_phases [ t_phase(n) / w(n) − t_phase(1) / w(1) ] / [ t(n) / w(n) ]
"""

from __future__ import annotations

import pandas as pd

from sml_kernel.scaling import laws

#: Seconds of a step by what they went to; what none of them holds is ``other_s``.
PHASES = ("data_s", "forward_s", "backward_s", "wait_s", "reduce_s", "update_s")
#: Amounts of work; the first that a study has is the measure of its throughput.
WORK = ("edges", "graphs", "hits")


def unit(rows: pd.DataFrame, work: str | None = None) -> str:
    """The measure of work: the one asked for, or the first in `WORK` that the rows have."""
    there = [name for name in WORK if name in rows or f"{name}_per_s" in rows]
    if not there or (work is not None and work not in there):
        raise ValueError(f"no {work or 'work'} is recorded; there is: {', '.join(there) or 'none'}")
    return work or there[0]


def repeats(steps: pd.DataFrame) -> pd.DataFrame:
    """Seconds a step, and throughput in each measure of work, a row a finished point.

    Parameters
    ----------
    steps
        Rows of steps without warm-up, one a rank and step. The time of a step is the mean of its
        ranks, which end it together.
    """
    if steps.empty:
        return pd.DataFrame(columns=["ranks", "repeat", "step_s"])
    there = [name for name in WORK if name in steps]
    by_step = steps.groupby(["ranks", "repeat", "step"])
    whole = by_step[there].sum().assign(step_s=by_step.step_s.mean())
    points = whole.groupby(["ranks", "repeat"])
    sums = points.sum()
    rates = {f"{name}_per_s": sums[name] / sums.step_s for name in there}
    return pd.DataFrame({"step_s": points.step_s.mean(), **rates}).reset_index()


def table(points: pd.DataFrame, work: str | None = None) -> pd.DataFrame:
    """Throughput over all repeats with standard error, speed-up and efficiency.

    Repeats do the same work, so the throughput of all is the harmonic mean: work over time.
    Speed-up and efficiency are relative to the fewest ranks measured (column ``base``). Errors are
    nan where there is one repeat only.
    """
    column = f"{unit(points, work)}_per_s"
    found = points.groupby("ranks")[column].agg(
        repeats="count", throughput=lambda rates: 1 / (1 / rates).mean(), error="sem"
    )
    found = found.reset_index()
    value, error = laws.efficiency(
        found.ranks.tolist(), found.throughput.tolist(), found.error.tolist()
    )
    return found.assign(
        unit=column,
        base=found.ranks.min(),
        speed_up=value * found.ranks,
        speed_up_error=error * found.ranks,
        efficiency=value,
        efficiency_error=error,
    )


def phases(steps: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds a step and rank in each phase, with ``other_s`` and ``step_s``: they add up."""
    there = [name for name in PHASES if name in steps]
    found = steps.groupby("ranks")[[*there, "step_s"]].mean()
    found.insert(len(there), "other_s", found.step_s - found[there].sum(axis=1))
    return found.reset_index()


def losses(steps: pd.DataFrame) -> pd.DataFrame:
    """Efficiency lost to each phase relative to the fewest ranks: the module's formula.

    Negative where a phase takes less time for the same work than with the fewest ranks.
    """
    times = phases(steps).set_index("ranks")
    work = steps.groupby("ranks")[unit(steps)].mean()
    per_work = times.div(work, axis=0)
    lost = per_work.sub(per_work.iloc[0]).div(per_work.step_s, axis=0)
    lost = lost.drop(columns="step_s").rename(columns=lambda name: name.removesuffix("_s"))
    return lost.assign(lost=lost.sum(axis=1)).reset_index()


def waiting(steps: pd.DataFrame) -> pd.DataFrame:
    """Share of the step that each rank waits for the slowest, and its work over an even share."""
    measure = unit(steps)
    if "wait_s" not in steps:
        raise ValueError("no waiting is recorded: the rows of steps have no wait_s")
    sums = steps.groupby(["ranks", "rank"])[["wait_s", "step_s", measure]].sum()
    even = sums[measure] / sums.groupby("ranks")[measure].transform("mean")
    waiting_share = sums.wait_s / sums.step_s
    return pd.DataFrame({"waiting": waiting_share, "relative_work": even}).reset_index()


def roofline(steps: pd.DataFrame, ranks: pd.DataFrame) -> pd.DataFrame:
    """What a rank reaches while it computes, and the least that its machine would allow.

    Parameters
    ----------
    steps
        Rows of steps with ``flops`` and ``bytes``: operations, and bytes that have to be moved.
    ranks
        Rows of ranks with ``matmul_flops_per_s`` and ``copy_bytes_per_s``: what each reached in a
        matrix product and in a copy.

    Returns
    -------
    DataFrame
        A row a number of ranks: ``intensity`` (operations a byte), ``flops_per_s`` reached in
        forward and backward together, ``roof_flops_per_s`` that the slower of product and copy
        allows at this intensity, ``share`` of it, and both rates. Empty if nothing was recorded.
    """
    if not {"flops", "bytes"} <= set(steps) or "matmul_flops_per_s" not in ranks:
        return pd.DataFrame()
    computed = steps.assign(seconds=steps.forward_s + steps.backward_s)
    sums = computed.groupby("ranks")[["flops", "bytes", "seconds"]].sum()
    rates = ranks.groupby("ranks")[["matmul_flops_per_s", "copy_bytes_per_s"]].median()
    table = rates.assign(
        intensity=sums.flops / sums.bytes, flops_per_s=sums.flops / sums.seconds
    ).reset_index()
    allowed = table.intensity * table.copy_bytes_per_s
    roof = allowed.where(allowed < table.matmul_flops_per_s, table.matmul_flops_per_s)
    return table.assign(roof_flops_per_s=roof, share=table.flops_per_s / roof)
