"""Write docs/howto-distributed-gnn.md from the records in benchmarks/records.

The text is howto.template.md; every number comes from a record. ``keep`` copies the record of a run
there, without what only the run needs (graphs, checkpoints, sessions of workers).

    python benchmarks/howto.py keep runs/gnn gnn
    python benchmarks/howto.py write
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sml_kernel import scaling
from sml_kernel.records import Run
from sml_kernel.tracking import Fiducial

HERE = Path(__file__).parent
RECORDS = HERE / "records"
PAGE = HERE.parent / "docs" / "howto-distributed-gnn.md"
#: Record → the command that makes it.
COMMANDS = {
    "gnn": "python benchmarks/gnn.py",
    "ranks/edges": "python benchmarks/ranks.py",
    "ranks/count": "python benchmarks/ranks.py",
    "inference": "python benchmarks/inference.py",
    "physics/trained": "python benchmarks/physics.py train",
    "physics/judged": "python benchmarks/physics.py judge",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("write", help="write the page")
    kept = commands.add_parser("keep", help="copy the record of a run")
    kept.add_argument("run", type=Path)
    kept.add_argument("name", choices=COMMANDS)
    given = parser.parse_args()
    if given.what == "keep":
        keep(given.run, RECORDS / given.name)
    else:
        PAGE.write_text(page())
        print(f"written: {PAGE}")


def keep(run: Path, to: Path) -> None:
    """Copy provenance, rows and the provenance of later sessions."""
    shutil.rmtree(to, ignore_errors=True)
    (to / "rows").mkdir(parents=True)
    said = json.loads((run / "run.json").read_text())
    said["parameters"].pop("folder", None)  # where it lay says nothing to a reader
    (to / "run.json").write_text(json.dumps(said, indent=1) + "\n")
    for rows in (run / "rows").glob("*.jsonl"):
        shutil.copy(rows, to / "rows")
    for session in (run / "sessions").glob("*/run.json"):
        (to / "sessions" / session.parent.name).mkdir(parents=True)
        shutil.copy(session, to / "sessions" / session.parent.name)


def page(folder: Path = RECORDS) -> str:
    """The page that the records in a folder make."""
    values: dict[str, str] = {}
    for section in (gnn, balance, losses, memory, inference, physics):
        values |= section(folder)
    values["origins"] = origins(folder)
    text = (HERE / "howto.template.md").read_text()
    return string.Template(text).substitute(values)


def gnn(folder: Path) -> dict[str, str]:
    """Our network against the textbook form."""
    run = Run(folder / "gnn")
    given, times, memory = run.provenance()["parameters"], run.rows("time"), run.rows("memory")
    times = times[times.threads == times.threads.max()]
    by_form = {what: rows.set_index("form") for what, rows in times.groupby("what")}
    peaks = memory.set_index("form")
    names = {"textbook": "textbook", "torch_geometric": "torch_geometric", "ours": "this package"}
    rows = [
        [
            shown,
            *(_ratio(by_form[what].loc[form]) for what in ("forward", "step")),
            f"{peaks.peak_mb[form]:,.0f} MB",
        ]
        for form, shown in names.items()
    ]
    heads = ["", "forward: textbook / this", "training step: textbook / this", "peak memory"]
    products = by_form["step"].products_alone
    return {
        "gnn_table": _table(heads, rows),
        "gnn_textbook_products": f"{products['textbook']:.0%}",
        "gnn_ours_products": f"{products['ours']:.0%}",
        "gnn_apart": f"{times.logits_differ.max():.0e}",
        "gnn_size": (
            f"{given['nodes']:,} nodes, {given['edges']:,} edges, hidden {given['hidden']}, "
            f"{given['iterations']} iterations, float32, {times.threads.max()} threads, medians of "
            f"{given['repeats']} with quartiles"
        ),
    }


def balance(folder: Path) -> dict[str, str]:
    """Waiting when steps are shared out by edges and when graphs are dealt."""
    rows = []
    for assign, shown in (("edges", "by edges"), ("count", "one graph after the other")):
        study = scaling.open_study(folder / "ranks" / assign)
        phases = study.phases().set_index("ranks")
        most = phases.index.max()
        table = study.table().set_index("ranks")
        waiting = phases.wait_s[most] / phases.step_s[most]
        rows.append([shown, f"{waiting:.1%}", _pm(table, most, "efficiency")])
    given = study.parameters["run"]
    steps = study.steps()
    sizes = steps.groupby(["ranks", "repeat", "step"]).edges.sum()
    return {
        "balance_table": _table(["parts", "waiting, of a step", "efficiency"], rows),
        "balance_size": (
            f"{most} ranks, {given['batch']} graphs a step of {given['graphs']} ttbar events of "
            f"very different pile-up ({sizes.min():,.0f} to {sizes.max():,.0f} edges a step)"
        ),
    }


def losses(folder: Path) -> dict[str, str]:
    """Where the efficiency of the study by edges went."""
    study = scaling.open_study(folder / "ranks" / "edges")
    lost, phases = study.losses(), study.phases()
    heads = [name for name in lost.columns if name != "other"]
    rows = [
        [f"{row.ranks:.0f}", *(f"{100 * row[n]:.1f} %" for n in heads[1:])]
        for _, row in lost.iterrows()
    ]
    parts = phases.drop(columns=["ranks", "step_s", "other_s"], errors="ignore").sum(axis=1)
    flags = study.flags()
    said = "; ".join(f"{row.flag} at {row.ranks} ranks, {row.detail}" for row in flags.itertuples())
    return {
        "losses_table": _table(heads, rows),
        "parts_sum": f"{(parts / phases.step_s).min():.1%}",
        "flags_here": f"Of this study it says: {said}."
        if said
        else "Of this study it says nothing.",
    }


def memory(folder: Path) -> dict[str, str]:
    """Peak memory of a step against its prediction."""
    (ours,) = Run(folder / "gnn").rows("memory").query("form == 'ours'").itertuples()
    return {
        "memory_measured": f"{ours.peak_mb:,.0f} MB",
        "memory_predicted": f"{ours.predicted_mb:,.0f} MB",
    }


def inference(folder: Path) -> dict[str, str]:
    """Hits to tracks stage by stage, and what both chains find."""
    run = Run(folder / "inference")
    timed, found = run.rows("inference"), run.rows("tracking").set_index(["pileup", "chain"])
    ratios = run.rows("ratio").set_index("pileup")
    timed = timed[~timed.warm_up.astype(bool)]
    rows = []
    for pileup, passes in timed.groupby("pileup"):
        network, acts = (passes[passes.chain == chain] for chain in ("network", "ACTS"))
        stages = network.groupby("stage").seconds.median()
        whole = acts.groupby(["event", "repeat"]).seconds.sum().median()
        ratio = ratios.loc[pileup]
        rows.append(
            [
                f"{pileup}",
                f"{network.hits.mean():,.0f}",
                f"{network.edges.mean():,.0f}",
                *(f"{stages[stage]:.3g} s" for stage in ("graph", "scores", "tracks")),
                f"{whole:.3g} s",
                f"{ratio['median']:.2f} ({ratio.low:.2f}–{ratio.high:.2f})",
                *(
                    _efficiency_and_fakes(found.loc[(pileup, chain)])
                    for chain in ("network", "ACTS")
                ),
            ]
        )
    heads = ["pile-up", "hits", "edges", "graph", "scores", "tracks", "ACTS", "ACTS / network"]
    heads += ["network: efficiency, fakes", "ACTS: efficiency, fakes"]
    given = run.provenance()["parameters"]
    return {
        "inference_table": _table(heads, rows),
        "inference_size": (
            f"{given['events']} ttbar events at each pile-up, {given['repeats']} passes, medians, "
            "one thread each; ratios pass by pass with quartiles. The network was trained at "
            "pile-up 50"
        ),
    }


def _efficiency_and_fakes(row: Any) -> str:
    return f"{row.efficiency:.3f} ± {row.efficiency_error:.3f}, {row.fake_rate:.3f}"


def physics(folder: Path) -> dict[str, str]:
    """What the network that comes with the package reaches, and what it took."""
    trained, judged = Run(folder / "physics" / "trained"), Run(folder / "physics" / "judged")
    (cost,) = trained.rows("cost").itertuples()
    given = trained.provenance()["parameters"]
    figures = judged.rows("figures")
    rows = [
        [
            f"{row.pileup}",
            row.builder if row.of == "ACTS" else f"{row.of}, {row.builder}",
            *(f"{_percent(row, name)}" for name in ("efficiency", "fake_rate")),
            f"{row.particles:,.0f}",
        ]
        for row in figures.itertuples()
    ]
    events = ", ".join(
        f"{count} at pile-up {pileup}"
        for pileup, count in figures.groupby("pileup").events.first().items()
    )
    return {
        "physics_table": _table(["pile-up", "", "efficiency", "fake rate", "particles"], rows),
        "physics_training": (
            f"{given['events'][0]} events at pile-up 10 and {given['events'][1]} at pile-up 50 in "
            f"{cost.wall_s / 60:.0f} minutes on {given['ranks']} cores ({cost.cpu_s / 60:.0f} "
            "minutes of CPU time, simulation apart where it was kept)"
        ),
        "physics_cuts": f"Two-way matching, {_cuts(figures.fiducial.iloc[0])}. Events: {events}",
    }


def _cuts(recorded: dict[str, Any]) -> str:
    given = {name: math.inf if value is None else value for name, value in recorded.items()}
    return str(Fiducial(**given))


def origins(folder: Path) -> str:
    """A row a record: command, when, on what, at which commit."""
    rows = []
    for name, command in COMMANDS.items():
        said = Run(folder / name).provenance()
        seen = said.get("machine")
        machine = f"{seen['cpu']}, {seen['cores']} cores" if seen else f"host {said['host']}"
        rows.append([f"`{name}`", f"`{command}`", said["start"][:10], machine, _commit(said)])
    return _table(["record", "command", "date", "machine", "commit"], rows)


def _commit(said: dict[str, Any]) -> str:
    commit, changed, _ = str(said["commit"]).partition("+")
    return commit[:10] + (" and edits" if changed else "")


def _ratio(row: Any) -> str:
    return f"{row.ratio:.2f} ({row.ratio_q1:.2f}–{row.ratio_q3:.2f})"


def _pm(table: pd.DataFrame, at: int, name: str) -> str:
    return f"{table[name][at]:.3f} ± {table[f'{name}_error'][at]:.3f}"


def _percent(row: Any, name: str) -> str:
    return f"{100 * getattr(row, name):.2f} ± {100 * getattr(row, f'{name}_error'):.2f} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
