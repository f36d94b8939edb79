"""What a study will show, foretold from one with fewer ranks and the shares of the work.

The straggler model: a rank computes for a seconds a graph and b an edge, both fitted to measured
steps, and a step ends when the slowest rank has computed, the gradients are added, and the weights
updated. The shares are those that the sampler will deal, so what uneven shares cost is known
before. Ranks also differ by chance: the relative residuals of the measured steps are drawn at
random for each rank and step. Not in the model is that ranks get in each other's way, for memory,
caches or the network: that is what a comparison with the measurement shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sml_kernel.scaling.results import Study, StudyError

_COMPUTING = ("data_s", "forward_s", "backward_s")
_OTHERS = ("wait", "reduce", "update")
_DRAWS = 50
#: ``loads(ranks, mode)`` → [steps, ranks, 2] graphs and edges of each rank in each step.
Loads = Callable[[int, str], np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """A prediction, from `predict`.

    Attributes
    ----------
    table
        A row a number of ranks: ``throughput`` in edges/s with ``error``, ``efficiency``, and the
        seconds of a step in ``compute_s``, ``wait_s``, ``reduce_s``, ``update_s``, ``step_s``, mean
        over ranks; ``assumed`` says what the row rests on beyond measured steps.
    graph_s, edge_s
        Seconds to compute a graph and an edge.
    """

    table: pd.DataFrame
    graph_s: float
    edge_s: float

    def rows(self) -> list[dict[str, Any]]:
        """What is recorded of it."""
        common = {"graph_s": self.graph_s, "edge_s": self.edge_s}
        return [{**row, **common} for row in self.table.to_dict("records")]


def predict(
    measured: Study,
    ranks: Sequence[int],
    loads: Loads,
    *,
    mode: str = "strong",
    reduce_s: Callable[[int], float] | None = None,
    seed: int = 0,
) -> Prediction:
    """Predict throughput, efficiency and phases before anything is submitted.

    Parameters
    ----------
    measured
        A study with at least one finished point; its steps at the fewest ranks are used.
    ranks
        Numbers of ranks to predict.
    loads
        The shares the sampler will deal, such as ``tracking.step_benchmark(graphs).loads``.
    mode
        ``"strong"`` or ``"weak"``.
    reduce_s
        Seconds to add the gradients of n ranks. None: as of a ring, whose time grows by
        (n − 1) / n, through what was measured at the most ranks; if that is one rank, nothing.
    seed
        Of the draws of residuals.

    Raises
    ------
    StudyError
        Nothing is measured yet, or not how long steps computed for how many edges.
    """
    steps = measured.steps()
    needed = {"graphs", "edges", "update_s", *_COMPUTING}
    if steps.empty or not needed <= set(steps):
        missing = ", ".join(sorted(needed - set(steps)))
        raise StudyError(f"a prediction needs measured steps with {missing or 'at least one row'}")
    base = steps[steps.ranks == steps.ranks.min()]
    cost, residuals = _fit_cost(base)
    reduction = _reduction(steps, reduce_s)
    update_s = float(base.update_s.mean())

    def step_of(n: int) -> dict[str, float]:
        dealt = np.asarray(loads(n, mode), float)
        chance = np.random.default_rng(seed).choice(residuals, (_DRAWS, *dealt.shape[:2]))
        return _step(dealt, cost, chance, update_s, reduction(n) if n > 1 else 0.0)

    one, spread = step_of(1), _relative_error(measured)
    rows = []
    for n in ranks:
        row = step_of(n)
        further = {
            "error": spread * row["throughput"],
            "efficiency": row["throughput"] / (n * one["throughput"]),
            "assumed": _assumed(n, steps, reduce_s),
        }
        rows.append({"ranks": n, "mode": mode, **row, **further})
    return Prediction(pd.DataFrame(rows), *cost)


def compare(study: Study) -> pd.DataFrame:
    """What was predicted against what came, a row a number of ranks that has both.

    ``ratio`` is measured over predicted throughput, ``pull`` their difference over its error (nan
    where a single repeat gives none). ``compute``, ``wait``, ``reduce`` and ``update`` are what
    these took longer than predicted, as a share of the measured step.

    Raises
    ------
    StudyError
        Nothing was predicted.
    """
    predicted = study.predictions()
    if predicted.empty:
        raise StudyError("no prediction is recorded: give one to scaling.study(..., prediction=)")
    came = study.table("edges").merge(study.phases(), on="ranks")
    both = predicted.merge(came, on="ranks", suffixes=("", "_measured"))
    came_compute = both[list(_COMPUTING)].sum(axis=1)
    excess = {
        "compute": came_compute - both.compute_s,
        **{name: both[f"{name}_s_measured"] - both[f"{name}_s"] for name in _OTHERS},
    }
    error = np.hypot(both.error.astype(float), both.error_measured)  # null in records is None
    return pd.DataFrame(
        {
            "ranks": both.ranks,
            "predicted": both.throughput,
            "measured": both.throughput_measured,
            "ratio": both.throughput_measured / both.throughput,
            "pull": (both.throughput_measured - both.throughput) / error,
            **{name: value / both.step_s_measured for name, value in excess.items()},
            "assumed": both.assumed,
        }
    )


def _fit_cost(steps: pd.DataFrame) -> tuple[tuple[float, float], np.ndarray]:
    """Seconds a graph and an edge, neither below zero, and relative residuals of the steps.

    A repeat that is slower as a whole says nothing about ranks that run at the same time, so
    residuals are relative to the mean of their repeat.
    """
    from scipy.optimize import nnls

    seconds = steps[list(_COMPUTING)].sum(axis=1).to_numpy()
    work = steps[["graphs", "edges"]].to_numpy(float)
    # Relative errors; and columns of one size, as a graph has many thousand edges
    scale = work.mean(axis=0)
    solved = nnls(work / scale / seconds[:, None], np.ones(len(seconds)))[0] / scale
    relative = pd.Series(seconds / (work @ solved), steps.index)
    residuals = relative / relative.groupby(steps.repeat).transform("mean")
    return (float(solved[0]), float(solved[1])), residuals.to_numpy()


def _reduction(
    steps: pd.DataFrame, reduce_s: Callable[[int], float] | None
) -> Callable[[int], float]:
    if reduce_s is not None:
        return reduce_s
    most = int(steps.ranks.max())
    if most == 1:
        return lambda n: 0.0
    there = float(steps.reduce_s[steps.ranks == most].mean())
    return lambda n: there * ((n - 1) / n) / ((most - 1) / most)


def _assumed(n: int, steps: pd.DataFrame, reduce_s: Callable[[int], float] | None) -> str:
    if n == 1 or reduce_s is not None:
        return ""
    if steps.ranks.max() == 1:
        return "adding gradients takes no time: one rank tells nothing about it"
    if n not in set(steps.ranks):
        return f"adding gradients as in a ring, through {steps.ranks.max()} ranks"
    return ""


def _step(
    dealt: np.ndarray,
    cost: tuple[float, float],
    chance: np.ndarray,
    update_s: float,
    reduce_s: float,
) -> dict[str, float]:
    """Mean step of the shares `dealt` [S, R, 2], times `chance` [D, S, R]."""
    compute = chance * (dealt @ np.asarray(cost))
    slowest = compute.max(axis=2)
    step_s = float(slowest.mean()) + reduce_s + update_s
    return {
        "throughput": float(dealt[..., 1].sum(axis=1).mean()) / step_s,
        "compute_s": float(compute.mean()),
        "wait_s": float((slowest[..., None] - compute).mean()),
        "reduce_s": reduce_s,
        "update_s": update_s,
        "step_s": step_s,
    }


def _relative_error(measured: Study) -> float:
    """Relative standard error of the throughput that the prediction starts from."""
    first = measured.table("edges").iloc[0]
    return float(first.error / first.throughput)
