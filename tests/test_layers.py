"""The rules of the house that imports and calls can break, read from the source.

Each rule is a function from source texts to breaches; a planted breach shows that it finds one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sml_kernel"
LAYERS = {
    "records": 0,
    "sites": 0,
    "workers": 1,
    "batch": 2,
    "foundation": 2,
    "hpo": 2,
    "sbi": 2,
    "scaling": 2,
    "serving": 2,
    "tracking": 2,
    "cli": 3,
    "doctor": 3,
    "plots": 3,
}
SLURM_COMMANDS = {"sbatch", "squeue", "sacct", "scancel"}
FACILITY_WORDS = ("nersc", "perlmutter", "m1234")


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, without ``.__init__``, and its text."""

    name: str
    text: str

    @property
    def part(self) -> str:
        """``workers`` of ``sml_kernel.workers.gang``; empty for the package itself."""
        return ".".join(self.name.split(".")[1:2])


@dataclass(frozen=True)
class Import:
    name: str
    line: int
    runs: bool  # at import of the module: neither inside a function nor for type checkers alone


def modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path.read_text()))
    return found


def imports(module: Module) -> list[Import]:
    """Every import of a module, ``from a import b`` as ``a.b``, wherever it stands."""
    return list(_imports(ast.parse(module.text), runs=True))


def _imports(node: ast.AST, runs: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, runs) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        yield from (
            Import(f"{node.module}.{alias.name}", node.lineno, runs) for alias in node.names
        )
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        later = True
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, runs and not later)


def layer_breaches(sources: list[Module]) -> list[str]:
    """Imports of a higher layer, and of another part of the same one (L3 may join L3)."""
    found = []
    for module in sources:
        if not module.part:  # the package's own __init__, which is lazy
            continue
        if module.part not in LAYERS:
            found.append(f"{module.name}: give {module.part!r} its layer in this test")
            continue
        for each in imports(module):
            top, _, below = each.name.partition(".")
            part = below.partition(".")[0]
            if top != "sml_kernel" or part in ("", module.part, "__version__"):
                continue
            here, there = LAYERS[module.part], LAYERS.get(part, 4)
            if there > here or there == here < 3:
                what = f"L{here} {module.part} imports L{there} {part}"
                found.append(f"{module.name}, line {each.line}: {what}")
    return found


def heavy_breaches(sources: list[Module]) -> list[str]:
    """torch or dask in L0, or at the import of what ``import sml_kernel`` itself imports."""
    by_name = {module.name: module for module in sources}
    reached, queue = set(), ["sml_kernel"]
    while queue:
        name = queue.pop()
        if name in by_name and name not in reached:
            reached.add(name)
            running = [each.name for each in imports(by_name[name]) if each.runs]
            queue += [*running, *(other.rpartition(".")[0] for other in running)]
    found = []
    for module in sources:
        for each in imports(module):
            heavy = each.name.split(".")[0] in ("torch", "torch_geometric", "dask", "distributed")
            ground = LAYERS.get(module.part) == 0
            if heavy and (ground or (module.name in reached and each.runs)):
                found.append(f"{module.name}, line {each.line}: imports {each.name}")
    return found


def facility_breaches(sources: list[Module]) -> list[str]:
    """A facility's name in code outside ``sites/``: documentation may give examples."""
    found = []
    for module in sources:
        if module.part == "sites":
            continue
        tree = ast.parse(module.text)
        documentation = _docstrings(tree)
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = "" if node in documentation else node.value
            elif isinstance(node, ast.Name):
                text = node.id
            elif isinstance(node, ast.Attribute):
                text = node.attr
            if any(word in text.lower() for word in FACILITY_WORDS):
                found.append(f"{module.name}, line {node.lineno}: {text!r}")
    return found


def _docstrings(tree: ast.AST) -> set[ast.AST]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def slurm_breaches(sources: list[Module]) -> list[str]:
    """One of Slurm's commands run, or made ready to be, anywhere but in ``workers/slurm.py``.

    Asking whether it is there (``shutil.which``) runs nothing.
    """
    found = []
    for module in sources:
        if module.name == "sml_kernel.workers.slurm":
            continue
        for node in ast.walk(ast.parse(module.text)):
            for command in SLURM_COMMANDS & set(_commands(node)):
                found.append(f"{module.name}, line {node.lineno}: runs {command}")
    return found


def _commands(node: ast.AST) -> Iterator[str]:
    """First words of the texts that a call is given, and of a list that looks like a command."""
    if isinstance(node, ast.Call) and not ast.unparse(node.func).endswith("which"):
        yield from map(_first_word, [*node.args, *(keyword.value for keyword in node.keywords)])
    if isinstance(node, ast.List | ast.Tuple) and node.elts:
        words = [_first_word(element) for element in node.elts]
        if not set(words) <= SLURM_COMMANDS | {"scontrol"}:  # that would be a list of commands
            yield words[0]


def _first_word(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    text = node.value if isinstance(node, ast.Constant) else None
    return Path(text.split()[0]).name if isinstance(text, str) and text.strip() else ""


RULES = [layer_breaches, heavy_breaches, facility_breaches, slurm_breaches]
PLANTED = [
    (layer_breaches, "sml_kernel.records", "from sml_kernel import workers"),
    (layer_breaches, "sml_kernel.sites.values", "import sml_kernel.records"),
    (layer_breaches, "sml_kernel.workers.gang", "def f():\n from sml_kernel.tracking import train"),
    (layer_breaches, "sml_kernel.tracking.model", "if TYPE_CHECKING:\n import sml_kernel.batch"),
    (layer_breaches, "sml_kernel.tracking.metrics", "from sml_kernel.plots import efficiency"),
    (layer_breaches, "sml_kernel.serving.servable", "from sml_kernel.tracking import model"),
    (layer_breaches, "sml_kernel.helpers", "import json"),
    (heavy_breaches, "sml_kernel", "import torch"),
    (heavy_breaches, "sml_kernel.records", "def f():\n import torch"),
    (heavy_breaches, "sml_kernel.sites", "from dask.distributed import Client"),
    (facility_breaches, "sml_kernel.workers.dask", "if site.name == 'perlmutter':\n pass"),
    (facility_breaches, "sml_kernel.batch", "NERSC_QUEUE = 'regular'"),
    (slurm_breaches, "sml_kernel.workers.watchdog", "run(['scancel', '--name', name])"),
    (slurm_breaches, "sml_kernel.plots", "command = ['squeue', '--json']\nrun(command)"),
    (slurm_breaches, "sml_kernel.batch", "os.system('/usr/bin/sbatch job.sh')"),
    (slurm_breaches, "sml_kernel.doctor", "subprocess.run(args=(f'squeue -u {user}'), shell=True)"),
]
ALLOWED = [
    ("sml_kernel.tracking.training", "from sml_kernel.workers import gang\nimport torch"),
    ("sml_kernel.cli", "from sml_kernel import batch, doctor, records"),
    ("sml_kernel.workers.slurm", "run(['sbatch', '--parsable'])"),
    ("sml_kernel.workers.dask", '"""As on Perlmutter at NERSC."""\nimport dask'),
    ("sml_kernel.sites.values", "NAME = 'perlmutter'"),
    ("sml_kernel.doctor", "COMMANDS = ('sbatch', 'scontrol')\nshutil.which('sbatch')"),
    ("sml_kernel", "def __getattr__(name):\n import torch"),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: Callable) -> None:
    found = rule(modules())
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_a_planted_breach_is_found(rule: Callable, name: str, text: str) -> None:
    assert len(rule([Module(name, text)])) == 1


@pytest.mark.parametrize(("name", "text"), ALLOWED)
def test_what_is_allowed_is_no_breach(name: str, text: str) -> None:
    assert not [breach for rule in RULES for breach in rule([Module(name, text)])]


def test_a_heavy_import_is_followed_through_the_modules_that_run() -> None:
    sources = [
        Module("sml_kernel", "from sml_kernel import workers"),
        Module("sml_kernel.workers", "from sml_kernel.workers.dask import launch"),
        Module("sml_kernel.workers.dask", "import distributed"),
    ]
    (breach,) = heavy_breaches(sources)
    assert breach == "sml_kernel.workers.dask, line 1: imports distributed"


def test_importing_is_free() -> None:
    heavy = {"torch", "dask", "distributed", "pandas", "numpy", "acts", "bokeh", "panel"}
    program = (
        "import sys, logging, signal\n"
        "before = signal.getsignal(signal.SIGINT), list(logging.getLogger().handlers)\n"
        "import sml_kernel\n"
        "after = signal.getsignal(signal.SIGINT), list(logging.getLogger().handlers)\n"
        f"print(sorted({heavy} & set(sys.modules)), before == after)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["[]", "True"]
