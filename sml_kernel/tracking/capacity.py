"""Whether a training fits into the memory of its ranks, found out before anything is started."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from sml_kernel.tracking.available import available_bytes
from sml_kernel.tracking.memory import Plan, plan
from sml_kernel.tracking.model import InteractionGNN
from sml_kernel.tracking.splitting import split_graph
from sml_kernel.tracking.store import GraphStore

#: Of a halo where the exact one takes too much: logits were off by 0.0004 (rms) at pile-up 20.
FEWER_HOPS = 3


def plan_training(
    graphs: Sequence[Data],
    model: InteractionGNN,
    ranks: int,
    workers: Any,
    memory_bytes: int | None,
) -> Plan:
    """How the graphs fit (`memory.plan`).

    Parameters
    ----------
    graphs
        Of training and validation.
    model, ranks, workers
        See `sml_kernel.tracking.train`.
    memory_bytes
        What a rank may use; None: what the hosts say where ranks will run.

    Raises
    ------
    ValueError
        They do not, and what would is said.
    """
    # asked even where the bytes are given: on a GPU internals are kept that a CPU makes again
    seen, device = _here(ranks) if workers is None else _there(workers.client)
    memory_bytes = seen if memory_bytes is None else memory_bytes
    sizes = [(int(graph.num_nodes), int(graph.num_edges)) for graph in graphs]
    return plan(sizes, model, memory_bytes, device=device, ranks=ranks).require()


def parts_of(plan: Plan, iterations: int) -> Callable[[Data], list[Data]] | None:
    """What splits a graph as planned; None: nothing is split.

    With a halo of as many hops as the network has iterations, which changes no number; where that
    leaves no place for edges, of `FEWER_HOPS`, with a warning.
    """

    def split(graph: Data) -> list[Data]:
        try:
            return split_graph(graph, plan.max_edges, iterations)
        except ValueError as error:
            warnings.warn(
                f"{error}; going on with {FEWER_HOPS}: logits at the borders are approximate",
                stacklevel=2,
            )
            return split_graph(graph, plan.max_edges, FEWER_HOPS)

    return split if plan.how == "split" else None


def check_kept(store: GraphStore, plan: Plan) -> None:
    """That graphs which were written earlier are in parts where they have to be.

    Raises
    ------
    ValueError
        They were written whole, where there was more memory.
    """
    whole = [entry for entry in store.entries if len(entry.files) == 1]
    most = max((entry.edges for entry in whole), default=0)
    if plan.how == "split" and most > plan.max_edges:
        raise ValueError(
            f"{store.folder} holds a graph of {most:,} edges as a whole, and a rank has memory for "
            f"{plan.max_edges:,} here: give ranks more, or train in a new folder"
        )


def _here(ranks: int) -> tuple[int, str]:
    if torch.cuda.is_available():
        seen = _asked()
        return seen["bytes"], seen["device"]
    return available_bytes(ranks), "cpu"


def _there(client: Any) -> tuple[int, str]:
    """The least that a worker sees."""
    hosts = [worker["host"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    seen = client.run(_asked, max(Counter(hosts).values()))
    least = min(seen.values(), key=lambda each: each["bytes"])
    return least["bytes"], least["device"]


def _asked(ranks_on_host: int = 1) -> dict[str, Any]:
    """In a process of its own: to ask a GPU takes some of its memory as long as the process is."""
    done = subprocess.run(
        [sys.executable, "-m", "sml_kernel.tracking.available", str(ranks_on_host)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the memory for ranks could not be found out: {done.stderr.strip()}")
    return json.loads(done.stdout)
