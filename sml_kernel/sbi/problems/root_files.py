"""Weighted events in the trees of ROOT files, read by uproot: flat branches, one value an event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sml_kernel.sbi.problems.columns import Layout, typed, unfit
from sml_kernel.sbi.problems.origins import InputError

if TYPE_CHECKING:
    import uproot


def read_root(path: Path, layout: Layout) -> pa.Table:
    """The branches that are wanted, or the error with entry and branch."""
    import uproot

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with uproot.open(path) as file:
            tree = _tree(path, file, layout.tree)
            names = layout.features_in(path, tree.keys())
            kinds = {**dict.fromkeys(names, "double"), **layout.kinds()}
            columns = {name: _flat(path, name, tree[name]) for name in kinds}
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damage meets uproot anywhere: it has no one error for it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is no sound ROOT file ({reason}); make it again") from error
    return pa.table({name: typed(path, name, columns[name], kind) for name, kind in kinds.items()})


def _tree(path: Path, file: uproot.ReadOnlyDirectory, name: str | None) -> uproot.TTree:
    """The tree of that name, or the only one; of several cycles the last."""
    found = sorted(set(file.keys(cycle=False, filter_classname="TTree")))
    there = f"there are {', '.join(found)}" if found else "there are none"
    if name is None and len(found) != 1:
        raise InputError(f"{path} needs one tree or a name, as in tree='events': {there}")
    if name is not None and name not in found:
        raise InputError(f"{path} has no tree {name!r}: {there}; name one of them, or write a tree")
    return file[name or found[0]]


def _flat(path: Path, name: str, branch: uproot.TBranch) -> pa.ChunkedArray:
    import uproot

    scalar = isinstance(branch.interpretation, uproot.AsDtype) and not (
        branch.interpretation.inner_shape
    )
    if not scalar and not isinstance(branch.interpretation, uproot.AsStrings):
        what = f"{branch.typename} is not one value an event; flatten it, or name the branches"
        raise unfit(path, name, f"{what} that are features in features=[…]")
    return pa.chunked_array([pa.array(branch.array(library="np"))])
