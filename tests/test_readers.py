"""TrackML events are read back as written; whatever is broken is named by file, line and column."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_kernel.tracking import read_trackml
from sml_kernel.tracking.events import InputError

# ------------------------------------------------------------------ random events, written as files

_MM = st.floats(-3000, 3000, width=32)
_GEV = st.floats(-100, 100, width=32)


@st.composite
def trackml_tables(draw: st.DrawFn) -> dict[str, pd.DataFrame]:
    """A valid event as the three tables of TrackML, rows of truth in an order of their own."""
    particles = draw(st.lists(st.integers(1, 2**62), unique=True, min_size=1, max_size=5))
    hits = draw(st.lists(st.integers(1, 10**6), unique=True, min_size=2, max_size=12))

    def column(values: st.SearchStrategy, length: int) -> list:
        return draw(st.lists(values, min_size=length, max_size=length))

    n, m = len(hits), len(particles)
    truth = pd.DataFrame(
        {
            "hit_id": hits,
            "particle_id": column(st.sampled_from([0, *particles]), n),
            **{name: np.float32(1.5) for name in ("tx", "ty", "tz", "tpx", "tpy", "tpz")},
            "weight": column(st.floats(0, 1, width=32), n),
        }
    )
    return {
        "hits": pd.DataFrame(
            {
                "hit_id": hits,
                **{name: column(_MM, n) for name in "xyz"},
                "volume_id": column(st.integers(7, 18), n),
                "layer_id": column(st.integers(2, 14), n),
                "module_id": column(st.integers(1, 3000), n),
            }
        ),
        "truth": truth.iloc[draw(st.permutations(range(n)))],
        "particles": pd.DataFrame(
            {
                "particle_id": particles,
                "particle_type": column(st.sampled_from([211, -211, 13, 2212]), m),
                **{name: column(_MM, m) for name in ("vx", "vy", "vz")},
                **{name: column(_GEV, m) for name in ("px", "py", "pz")},
                "q": column(st.sampled_from([-1, 1]), m),
                "nhits": 0,
            }
        ),
    }


def write_trackml(folder: Path, tables: dict[str, pd.DataFrame], event: int = 7) -> Path:
    for kind, table in tables.items():
        table.to_csv(folder / f"event{event:09}-{kind}.csv", index=False)
    return folder


@given(tables=trackml_tables(), zipped=st.booleans())
@settings(max_examples=40, deadline=None)
def test_trackml_event_is_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, pd.DataFrame], zipped: bool
) -> None:
    folder = write_trackml(tmp_path_factory.mktemp("event"), tables)
    if zipped:
        for path in list(folder.iterdir()):
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    (event,) = read_trackml(folder)
    expected = tables["hits"].merge(tables["truth"][["hit_id", "particle_id", "weight"]])
    pd.testing.assert_frame_equal(event.hits, expected, check_dtype=False, rtol=0, atol=0)
    particles = tables["particles"].drop(columns="nhits")
    read = event.particles.drop(columns="primary")
    pd.testing.assert_frame_equal(read, particles, check_dtype=False, rtol=0, atol=0)
    first = [(identity >> 24) & 0xFFF == 0 for identity in particles.particle_id]
    assert event.particles.primary.tolist() == first


# ----------------------------------------------------------------------- one thing broken at random


def _put(table: str, column: str, text: str) -> Callable:
    """A breach: `text` stands in a random row of that column; gives file, column and line."""

    def breach(tables: dict[str, pd.DataFrame], draw: Callable) -> tuple[str, str, int]:
        row = draw(st.integers(0, len(tables[table]) - 1))
        changed = tables[table].astype(object)
        changed.iloc[row, changed.columns.get_loc(column)] = text
        tables[table] = changed
        return table, column, row + 2

    return breach


def _repeat_hit(tables: dict[str, pd.DataFrame], draw: Callable) -> tuple[str, str, int]:
    table = draw(st.sampled_from(["hits", "truth"]))
    row = draw(st.integers(0, len(tables[table]) - 1))
    tables[table] = pd.concat([tables[table], tables[table].iloc[[row]]])
    return table, "hit_id", len(tables[table]) + 1


def _repeat_particle(tables: dict[str, pd.DataFrame], draw: Callable) -> tuple[str, str, int]:
    row = draw(st.integers(0, len(tables["particles"]) - 1))
    tables["particles"] = pd.concat([tables["particles"], tables["particles"].iloc[[row]]])
    return "particles", "particle_id", len(tables["particles"]) + 1


def _drop_column(tables: dict[str, pd.DataFrame], draw: Callable) -> tuple[str, str, int]:
    needed = {"hits": list("xyz"), "truth": ["particle_id", "weight"], "particles": ["px", "q"]}
    table = draw(st.sampled_from(sorted(needed)))
    column = draw(st.sampled_from(needed[table]))
    tables[table] = tables[table].drop(columns=column)
    return table, column, 1


def _drop_truth(tables: dict[str, pd.DataFrame], draw: Callable) -> tuple[str, str, int]:
    row = draw(st.integers(0, len(tables["truth"]) - 1))
    hit = tables["truth"].hit_id.iloc[row]
    tables["truth"] = tables["truth"].drop(tables["truth"].index[row])
    return "hits", "hit_id", tables["hits"].hit_id.tolist().index(hit) + 2


def _truth_of_no_hit(tables: dict[str, pd.DataFrame], draw: Callable) -> tuple[str, str, int]:
    stray = tables["truth"].iloc[[0]].assign(hit_id=10**6 + 1)
    tables["truth"] = pd.concat([tables["truth"], stray])
    return "truth", "hit_id", len(tables["truth"]) + 1


BREACHES = {
    "missing column": _drop_column,
    "text for a number": _put("hits", "y", "12a"),
    "text for an id": _put("truth", "particle_id", "pion"),
    "fraction for an id": _put("hits", "module_id", "3.5"),
    "fraction beyond 53 bits": _put("truth", "particle_id", "4503599627370497.5"),
    "truth value": _put("hits", "z", "True"),
    "truth value for an id": _put("hits", "layer_id", "true"),
    "nan": _put("hits", "x", "nan"),
    "no text": _put("hits", "x", "1\0"),
    "infinite": _put("particles", "pz", "-inf"),
    "value missing": _put("particles", "vx", ""),
    "id too large": _put("particles", "particle_id", str(2**63)),
    "volume too large": _put("hits", "volume_id", str(2**31)),
    "particle called 0": _put("particles", "particle_id", "0"),
    "hit twice": _repeat_hit,
    "particle twice": _repeat_particle,
    "hit without truth": _drop_truth,
    "truth for an unknown hit": _truth_of_no_hit,
    "truth by an unknown particle": _put("truth", "particle_id", str(2**62 + 1)),
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_broken_trackml_event_names_file_column_and_line(
    tmp_path_factory: pytest.TempPathFactory, breach: Callable, data: st.DataObject
) -> None:
    tables = data.draw(trackml_tables())
    kind, column, line = breach(tables, data.draw)
    folder = write_trackml(tmp_path_factory.mktemp("event"), tables)
    with pytest.raises(InputError) as caught:
        list(read_trackml(folder))
    assert f"event000000007-{kind}.csv, line {line}, column {column!r}: " in str(caught.value)


GOOD = {
    "hits": "hit_id,x,y,z,volume_id,layer_id,module_id\n1,30.5,0,1,8,2,5\n",
    "truth": "hit_id,particle_id,weight\n1,4503599627370496,1e-5\n",
    "particles": "particle_id,vx,vy,vz,px,py,pz,q\n4503599627370496,0,0,0,1,0,0,-1.0\n",
}


def write_texts(folder: Path, hits: bytes | None = None) -> Path:
    for kind, text in GOOD.items():
        path = folder / f"event000000001-{kind}.csv.gz"
        path.write_bytes(gzip.compress(text.encode()))
    if hits is not None:
        (folder / "event000000001-hits.csv.gz").write_bytes(hits)
    return folder


def test_handwritten_event_with_a_charge_in_floating_point(tmp_path: Path) -> None:
    (event,) = read_trackml(write_texts(tmp_path))
    assert event.particles.q.tolist() == [-1]
    assert event.particles.particle_type.tolist() == [0]


_HITS = GOOD["hits"].encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(gzip.compress(_HITS)[:-9], "cut short", id="truncated gzip"),
        pytest.param(_HITS, "not a sound gzip", id="not gzip"),
        pytest.param(b"", "is empty", id="no bytes"),
        pytest.param(gzip.compress(b"\n\n"), "is empty", id="blank"),
        pytest.param(gzip.compress(_HITS.split(b"\n")[0]), "no hits", id="header alone"),
        pytest.param(gzip.compress(_HITS + b"2,1,1"), "line 3, column 'z'", id="torn line"),
        pytest.param(gzip.compress(_HITS.replace(b".", b",")), "line 2", id="decimal comma"),
        pytest.param(gzip.compress(b"\n".join([_HITS] * 2)), "line 3", id="blank line"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(InputError, match="event000000001-hits.csv.gz.*" + words):
        list(read_trackml(write_texts(tmp_path, hits=content)))


def test_folder_without_events_and_event_without_truth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_trackml(tmp_path / "absent")
    with pytest.raises(InputError, match="no event"):
        read_trackml(tmp_path)
    (write_texts(tmp_path) / "event000000001-truth.csv.gz").unlink()
    with pytest.raises(InputError, match=r"no event000000001-truth\.csv"):
        read_trackml(tmp_path)


def test_events_come_in_order_and_good_ones_before_a_broken_one(tmp_path: Path) -> None:
    for number in (10, 9, 1_000_000_000):
        for kind, text in GOOD.items():
            (tmp_path / f"event{number:09}-{kind}.csv").write_text(text)
    broken = tmp_path / "event1000000000-hits.csv"
    broken.write_text(broken.read_text().replace("30.5", "nan"))
    (tmp_path / "detectors.csv").write_text("volume_id\n8\n")
    events = read_trackml(tmp_path)
    assert [next(events).name, next(events).name] == ["event000000009", "event000000010"]
    with pytest.raises(InputError, match="line 2, column 'x'"):
        next(events)


def test_real_trackml_event(shared) -> None:
    (event,) = read_trackml(shared("trackml"))
    assert event.name == "event000000001"
    assert len(event.hits) == 5527
    assert len(event.particles) == 548
    assert (event.hits.particle_id == 0).sum() == 829
    vertex_radius = np.hypot(event.particles.vx, event.particles.vy)
    assert vertex_radius[~event.particles.primary].min() > 2  # secondaries are made in material
    assert event.hits.weight.sum() == pytest.approx(0.05126, abs=1e-5)


def test_hundred_thousand_hits_are_read_in_under_a_second(tmp_path: Path) -> None:
    n = 100_000
    generator = np.random.default_rng(1)
    hits = pd.DataFrame({"hit_id": np.arange(1, n + 1)})
    for name in "xyz":
        hits[name] = generator.uniform(-1000, 1000, n).astype("float32")
    hits = hits.assign(volume_id=8, layer_id=2, module_id=np.arange(n) % 3000)
    particles = pd.DataFrame({"particle_id": np.arange(1, 10_001)})
    for name in ("vx", "vy", "vz", "px", "py", "pz"):
        particles[name] = generator.normal(size=len(particles))
    truth = hits[["hit_id"]].assign(particle_id=generator.integers(0, 10_001, n), weight=1e-5)
    write_trackml(tmp_path, {"hits": hits, "truth": truth, "particles": particles.assign(q=1)})
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        (event,) = read_trackml(tmp_path)
        seconds.append(time.perf_counter() - begin)
    assert len(event.hits) == n
    assert min(seconds) < 1
