"""Trees of ROOT files become problems, or one error says which file and branch will not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import uproot

from sml_kernel import sbi

COLUMNS = {"m": np.arange(5.0, dtype="float32"), "weight": np.ones(5), "event": np.arange(5)}


def write(path: Path, **trees: dict[str, np.ndarray]) -> Path:
    with uproot.recreate(path) as file:
        for name, columns in trees.items():
            file.mktree(name, {key: (v.dtype, v.shape[1:]) for key, v in columns.items()})
            file[name].extend(columns)
    return path


def test_branches_are_read_back_as_written(tmp_path: Path) -> None:
    """Every type of number, names with signs of their own, in one problem with other formats."""
    rng = np.random.default_rng(1)
    whole = {
        "n_jets": "int8",
        "run": "uint32",
        "big": "uint64",
        "pT (GeV)": "float32",
        "η": "float64",
    }
    columns = {name: rng.integers(0, 100, 50).astype(kind) for name, kind in whole.items()}
    columns["weight"] = rng.normal(1, 1, 50).round(2) + 1
    columns["event"] = np.arange(50, dtype="uint64")
    files = {"s": write(tmp_path / "s.root", events=columns), "b": tmp_path / "b.csv"}
    pd.DataFrame(columns).to_csv(files["b"], index=False)
    problem = sbi.read_problem(files, event="event")
    table = np.stack([columns[name] for name in whole], axis=1).astype("float32")
    assert problem.feature_names == tuple(whole)
    assert (problem.features == np.concatenate([table, table])).all()
    assert (problem.weights == np.tile(columns["weight"], 2)).all()
    assert (problem.event_ids == np.tile(np.arange(50), 2)).all()


def test_a_tree_is_named_where_there_are_several(tmp_path: Path) -> None:
    other = COLUMNS | {"m": np.full(5, 7.0)}
    path = write(tmp_path / "two.root", nominal=COLUMNS, jes=other)
    assert sbi.read_problem({"s": path}, tree="jes", features=["m"]).features.max() == 7
    with pytest.raises(sbi.InputError, match=r"two\.root needs one tree .*there are jes, nominal"):
        sbi.read_problem({"s": path})
    with pytest.raises(
        sbi.InputError, match=r"two\.root has no tree 'tes': there are jes, nominal"
    ):
        sbi.read_problem({"s": path}, tree="tes")
    with pytest.raises(sbi.InputError, match=r"none\.root needs one tree .*there are none"):
        sbi.read_problem({"s": write(tmp_path / "none.root")})


def changed(**columns: np.ndarray) -> dict[str, np.ndarray]:
    return COLUMNS | columns


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (changed(m=np.array([1, 2, 3, np.inf, 4])), "entry 3, column 'm': inf is not a finite"),
        (changed(event=np.zeros(5, int)), "entry 1, column 'event': event 0 of class 's' comes"),
        (changed(event=np.arange(5.0)), "column 'event': double where int64 is needed"),
        (changed(event=np.arange(5, dtype="uint64") + 2**63), "column 'event': Integer value"),
        (changed(m=np.ones(5, bool)), "column 'm': bool where double is needed"),
        (changed(m=np.ones((5, 3))), "column 'm': double[3] is not one value an event"),
        (changed(z=np.ones(5)), "column 'z': no feature of"),
        ({"m": np.ones(5), "event": np.arange(5)}, "column 'weight': the column is missing"),
        ({k: v[:0] for k, v in COLUMNS.items()}, "has no events; leave it out"),
    ],
)
def test_bad_branches_give_their_one_error(
    tmp_path: Path, columns: dict[str, np.ndarray], complaint: str
) -> None:
    first = write(tmp_path / "b.root", events=COLUMNS)
    second = write(tmp_path / "s.root", events=columns)
    with pytest.raises(sbi.InputError, match=re.escape(complaint)) as raised:
        sbi.read_problem({"b": first, "s": second}, event="event")
    assert str(raised.value).startswith(str(second))


def test_a_branch_of_text_may_say_the_class(tmp_path: Path) -> None:
    path = tmp_path / "mixed.root"
    with uproot.recreate(path) as file:
        file.mktree("events", {"m": "float32", "process": "string"})
        file["events"].extend({"m": COLUMNS["m"], "process": ["b", "a", "b", "a", "b"]})
    problem = sbi.read_problem(path, label="process", weight=None)
    assert problem.classes == ("a", "b")
    assert list(problem.labels) == [1, 0, 1, 0, 1]
    assert list(problem.features[:, 0]) == [0, 1, 2, 3, 4]


def test_jagged_branches_are_refused_by_name(tmp_path: Path) -> None:
    import awkward

    jagged = awkward.Array([[1.0], [], [2.0, 3.0], [4.0], [5.0]])
    path = tmp_path / "jagged.root"
    with uproot.recreate(path) as file:
        file.mktree("events", {"m": "float32", "weight": "float64", "pt": "var * float32"})
        file["events"].extend({"m": COLUMNS["m"], "weight": np.ones(5), "pt": jagged})
    with pytest.raises(sbi.InputError, match=r"column 'pt': float\[\] is not one value an event"):
        sbi.read_problem({"s": path})
    assert sbi.read_problem({"s": path}, features=["m"]).features.shape == (5, 1)


def test_damaged_files_give_their_one_error(tmp_path: Path) -> None:
    """Cut short anywhere, or with a byte changed: read as it was, or one error with its name."""
    rng = np.random.default_rng(2)
    columns = {"m": rng.normal(size=5000), "weight": np.ones(5000)}
    whole = write(tmp_path / "whole.root", events=columns).read_bytes()
    path, refused = tmp_path / "damaged.root", 0
    header = rng.integers(400, size=60)
    for place in (*rng.integers(len(whole), size=30), *header, 0):
        cut = place not in header
        damaged = bytearray(whole[:place] if cut else whole)
        if not cut:
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert len(sbi.read_problem({"s": path}).features) == 5000
        except sbi.InputError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
            refused += 1
    assert refused > 30
    with pytest.raises(sbi.InputError, match=r"gone\.root: no such file"):
        sbi.read_problem({"s": tmp_path / "gone.root"})
