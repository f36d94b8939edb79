"""Predicted memory against measured, and what is done where there is too little."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sml_kernel.tracking import Form, InteractionGNN, memory
from sml_kernel.tracking.available import _left
from sml_kernel.workers.allocator import RANK

CASES = {
    "kept": (4_000, 20_000, 32, 8, False, "float32", True),
    "remade": (10_000, 60_000, 64, 3, True, "float32", True),
    "nodes kept, edges remade": (25_000, 150_000, 32, 2, None, "float32", True),
    "mapped arrays": (10_000, 80_000, 128, 2, None, "float32", True),
    "kept, bfloat16": (4_000, 20_000, 64, 3, False, "bfloat16", True),
    "remade, bfloat16": (4_000, 20_000, 64, 3, True, "bfloat16", True),
    "inference": (15_000, 120_000, 64, 2, None, "float32", False),
}

# Kept internals in glibc's heap: the same case took 305 to 363 MB, another 143 to 188 MB, in runs
# that differed in nothing. Not all of them are within 15 %; of torch's own count all are, below.
SPREAD = {"kept": 0.25, "kept, bfloat16": 0.25}

# Each case in a fork of a process that has imported torch: VmHWM of the fork begins at what it has
# then. (ru_maxrss would not: it is handed on by the parent.)
MEASURE = """
import json, os, sys
from contextlib import nullcontext
import torch
from torch.nn import functional
from sml_kernel.tracking import InteractionGNN

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

def steps(count, nodes, edges, hidden, iterations, checkpointing, precision, training):
    torch.manual_seed(0)
    model = InteractionGNN(3, 6, hidden, iterations, checkpointing=checkpointing)
    optimiser = torch.optim.AdamW(model.parameters())
    graph = torch.randn(nodes, 3), torch.randint(nodes, (2, edges)), torch.randn(edges, 6)
    y, weight = torch.randint(2, (edges,)).float(), torch.ones(edges)
    low = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    for _ in range(count):
        with low, torch.set_grad_enabled(training):
            logits = model(*graph).float()
        if training:
            optimiser.zero_grad(set_to_none=False)
            loss = functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
            (loss * weight).sum().backward()
            optimiser.step()

torch.set_num_threads(1)
for case in json.loads(sys.argv[1]):
    if os.fork() == 0:
        steps(1, 50, 300, 16, 1, *case[4:])  # pages of code that it will run
        before = status("VmRSS")
        steps(2, *case)
        print(status("VmHWM") - before, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(list(CASES.values()))],
        env={**os.environ, **RANK, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(zip(CASES, map(int, ran.stdout.split()), strict=True))


def on_meta(hidden: int, iterations: int, checkpointing: bool | None = None) -> InteractionGNN:
    with torch.device("meta"):
        return InteractionGNN(3, 6, hidden, iterations, checkpointing=checkpointing)


@pytest.mark.parametrize("name", CASES)
def test_a_prediction_is_near_measurement(name: str, measured) -> None:
    nodes, edges, hidden, iterations, checkpointing, precision, training = CASES[name]
    model = on_meta(hidden, iterations, checkpointing)
    found = memory.predict(nodes, edges, model, precision=precision, training=training)
    print(f"{name}: {found.peak_bytes / measured[name]:.3f} of {measured[name] / 1e6:.0f} MB")
    assert found.peak_bytes == pytest.approx(measured[name], rel=SPREAD.get(name, 0.15))


def test_each_way_out_is_taken_when_the_one_before_no_longer_fits() -> None:
    model, sizes = on_meta(64, 6, checkpointing=False), [(20_000, 100_000), (2_000, 8_000)]
    needs = [memory.predict(*sizes[0], each).peak_bytes for each in (model, memory.remade(model))]
    found = [memory.plan(sizes, model, int(1.2 * need)) for need in (*needs, needs[1] / 3)]
    assert [each.how for each in found] == ["as asked", "remade", "split"]
    assert [each.parts for each in found] == [(1, 1), (1, 1), (3, 1)]
    largest = found[2].max_edges
    part = memory.predict(largest // 5, largest, memory.remade(model)).peak_bytes
    assert 0.98 < 1.15 * part / found[2].available_bytes <= 1.001
    refused = memory.plan(sizes, model, int(1.2 * needs[1] / 3), max_parts=1)
    with pytest.raises(ValueError, match=rf"up to {largest:,} edges or a width of up to \d+ on"):
        refused.require()


def test_what_a_plan_says_of_the_width_fits() -> None:
    model, size = on_meta(128, 8), (20_000, 100_000)
    refused = memory.plan([size], model, 300_000_000, max_parts=1)
    assert refused.how == "refused"
    width = int(refused.text.partition("width of up to ")[2].split()[0])
    for hidden, fits in ((width, True), (width + 1, False)):
        network = on_meta(hidden, 8, checkpointing=True)
        assert (1.15 * memory.predict(*size, network).peak_bytes <= 300_000_000) == fits


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(
    ("form", "aggregations"),
    [
        (Form(skip="concat", node_layers=3), ("sum",)),
        (Form(nodes_first=True, decodes_ends=False, activation="ReLU"), ("sum",)),
        (Form(), ("mean", "max", "std")),
    ],
)
def test_arrays_of_other_forms_are_those_that_torch_allocates(
    form: Form, aggregations: tuple[str, ...], checkpointing: bool
) -> None:
    nodes, edges = 4_000, 20_000
    model = InteractionGNN(
        3, 6, 32, 2, form=form, aggregations=aggregations, checkpointing=checkpointing
    )
    graph = torch.randn(nodes, 3), torch.randint(nodes, (2, edges)), torch.randn(edges, 6)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        model(*graph).sum().backward()
    events = profiled.profiler.kineto_results.events()
    events = [each for each in events if each.name() == "[memory]"]
    events.sort(key=lambda each: each.start_ns())
    allocated = max(itertools.accumulate(each.nbytes() for each in events))
    predicted = memory.predict(nodes, edges, model)
    order = nodes * 16 + edges * 40  # of the graph's bytes, what the pass itself allocates
    assert predicted.arrays_bytes + order == pytest.approx(allocated, rel=0.15)


LIMITED = """
import resource, sys
import torch
from torch_geometric.data import Data
from sml_kernel.tracking import InteractionGNN, memory
from sml_kernel.tracking.step import edge_loss
from sml_kernel.tracking.splitting import split_graph

def step(model, parts):
    for part in parts:
        logits = model(part.x, part.edge_index, part.edge_attr)
        edge_loss(logits, part.y, part.weight).backward()

torch.manual_seed(0)
torch.set_num_threads(1)
n, e = 10_000, 60_000
model = InteractionGNN(3, 6, 64, 4, checkpointing=False)
source = torch.randint(n, (e,))
graph = Data(
    x=torch.linspace(-1, 1, n)[:, None].expand(n, 3).contiguous(),
    edge_index=torch.stack([source, (source + torch.randint(1, 20, (e,))) % n]),
    edge_attr=torch.randn(e, 6), y=torch.zeros(e), weight=torch.ones(e),
)
step(model, [Data(**{k: v[:, :9] if k == "edge_index" else v[:9] if k != "x" else v
     for k, v in graph.to_dict().items()})])
model.zero_grad()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + 170_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
plan = memory.plan([(n, e)], model, memory.available_bytes())
print(plan.how)
if sys.argv[1] == "planned":
    parts = split_graph(graph, plan.max_edges, halo=1)
    step(memory.remade(model), parts)
    print(len(parts), sum(int(part.own.sum()) for part in parts))
else:
    step(model, [graph])
"""


def test_what_runs_out_of_memory_runs_by_its_plan() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", LIMITED, how],
            env={**os.environ, **RANK, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        for how in ("as asked", "planned")
    ]
    assert runs[0].returncode
    assert "memory" in runs[0].stderr.lower()
    assert runs[1].returncode == 0, runs[1].stderr
    how, parts, owned = runs[1].stdout.split()
    assert how == "split"
    assert int(parts) > 1
    assert int(owned) == 60_000


def test_the_tightest_cgroup_above_counts_and_dropped_pages_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "step"
    folder.mkdir(parents=True)
    for where, limit, used, droppable in ((folder.parent, 900, 500, 300), (folder, "max", 400, 0)):
        (where / "memory.max").write_text(f"{limit}\n")
        (where / "memory.current").write_text(f"{used}\n")
        (where / "memory.stat").write_text(f"anon 7\ninactive_file {droppable}\n")
    files = ("memory.max", "memory.current", "inactive_file")
    assert list(_left(tmp_path, "/job/step", files)) == [700]


def test_slurms_memory_is_shared_by_the_ranks_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000")
    assert memory.available_bytes(2) == (1000 << 20) // 2 - (300 << 20)
    assert memory.available_bytes(4) == 0
