"""Readers give back what was written, and name file, row and column of whatever is broken."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_kernel.tracking import read_acts_csv, read_colliderml, read_trackml
from sml_kernel.tracking.events import Event, InputError
from sml_kernel.tracking.readers import geometry_columns, pack_barcode

_BESIDE = Path(__file__).parents[1].parent / "shared" / "data"
SHARED = Path(os.environ.get("SML_SHARED_DATA", _BESIDE))


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name}: name the folder of sample data by SML_SHARED_DATA")
    return SHARED / name


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
    "nan": _put("hits", "x", "nan"),
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


def test_real_trackml_event() -> None:
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


# --------------------------------------------------------------------------------------------- ACTS


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two particle-gun events written by ACTS itself, in ``csv`` and as parquet."""
    import acts.arrow
    import acts.examples.arrow as arrow
    from acts.examples import GenericDetector, RandomNumbers, Sequencer
    from acts.examples.simulation import MomentumConfig, ParticleConfig, addFatras, addParticleGun

    folder = tmp_path_factory.mktemp("acts")
    quiet = acts.logging.ERROR
    detector = GenericDetector()
    random = RandomNumbers(seed=3)
    sequencer = Sequencer(events=2, numThreads=1, logLevel=quiet)
    addParticleGun(
        sequencer,
        MomentumConfig(1.0, 5.0, transverse=True),
        particleConfig=ParticleConfig(20, acts.PdgParticle.ePionPlus, True),
        multiplicity=2,
        rnd=random,
    )
    addFatras(
        sequencer,
        detector.trackingGeometry(),
        acts.ConstantBField(acts.Vector3(0, 0, 2 * acts.UnitConstants.T)),
        random,
        outputDirCsv=str(folder / "csv"),
        logLevel=quiet,
    )
    tables = {"level": quiet, "inputParticles": "particles_simulated"}
    resolver = arrow.makeVolumeIdDetectorResolver({8: 1})
    sequencer.addAlgorithm(
        arrow.ArrowSimHitOutputConverter(
            inputSimHits="simhits", outputTable="hits", detectorResolver=resolver, **tables
        )
    )
    sequencer.addAlgorithm(arrow.ArrowParticleOutputConverter(outputTable="made", **tables))
    sequencer.addWriter(
        arrow.ParquetWriter(
            level=quiet,
            collections={"hits": "tracker_hits", "made": "particles"},
            expectedSchemas={
                "hits": acts.arrow.simHitSchema(),
                "made": acts.arrow.particleSchema(),
            },
            outputDir=str(folder),
        )
    )
    sequencer.run()
    return folder


def test_acts_csv_and_acts_parquet_are_the_same_events(simulated: Path) -> None:
    (shard,) = (simulated / "tracker_hits").glob("*.parquet")
    from_csv = list(read_acts_csv(simulated / "csv"))
    from_parquet = list(read_colliderml(shard, positions="true"))
    assert len(from_csv) == len(from_parquet) == 2
    for one, other in zip(from_csv, from_parquet, strict=True):
        assert len(one.hits) > 300
        xyz, modules = ["x", "y", "z"], ["volume_id", "layer_id", "module_id"]
        np.testing.assert_allclose(one.hits[xyz], other.hits[xyz], rtol=1e-6)
        pd.testing.assert_frame_equal(one.hits[modules], other.hits[modules])
        np.testing.assert_allclose(_momenta_of_hits(one), _momenta_of_hits(other), rtol=1e-5)
        assert one.particles.primary.equals(other.particles.primary)


def _momenta_of_hits(event: Event) -> np.ndarray:
    merged = event.hits[["particle_id"]].merge(event.particles, on="particle_id", how="left")
    return merged[["px", "py", "pz"]].to_numpy()


def test_acts_geometry_identifiers_are_taken_apart_as_acts_does() -> None:
    import acts

    identifiers = []
    for volume, layer, module in [(7, 2, 1), (18, 4095, 2**20 - 1), (255, 14, 77)]:
        identifier = acts.GeometryIdentifier()
        identifier.volume, identifier.layer, identifier.sensitive = volume, layer, module
        identifier.boundary, identifier.approach, identifier.extra = 3, 5, 9
        identifiers.append(identifier)
    columns = geometry_columns(np.array([each.value for each in identifiers], np.uint64))
    assert columns["volume_id"].tolist() == [each.volume for each in identifiers]
    assert columns["layer_id"].tolist() == [each.layer for each in identifiers]
    assert columns["module_id"].tolist() == [each.sensitive for each in identifiers]


@given(st.tuples(*(st.integers(0, 2**bits - 1) for bits in (11, 12, 16, 8, 16))))
def test_barcodes_are_packed_reversibly(parts: tuple[int, ...]) -> None:
    names = ["particle_id_" + name for name in ("pv", "sv", "part", "gen", "subpart")]
    (packed,) = pack_barcode(pd.DataFrame([parts], columns=names)).tolist()
    fields = [(52, 0x7FF), (40, 0xFFF), (24, 0xFFFF), (16, 0xFF), (0, 0xFFFF)]
    assert tuple(packed >> shift & mask for shift, mask in fields) == parts


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def _edit(path: Path, line: int, column: str, text: str) -> None:
    lines = path.read_text().split("\n")
    fields = lines[line - 1].split(",")
    fields[lines[0].split(",").index(column)] = text
    lines[line - 1] = ",".join(fields)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("tz", "nan"),
        ("particle_id_pv", "2048"),
        ("particle_id_part", "999"),
        ("geometry_id", "-1"),
        ("index", "0"),
    ],
)
def test_broken_acts_hits_name_column_and_line(
    simulated: Path, tmp_path: Path, column: str, text: str
) -> None:
    _copy(simulated / "csv", tmp_path)
    hits = tmp_path / "event000000001-hits.csv"
    indices = pd.read_csv(hits)["index"]
    line = int(indices.index[indices > 0][-1]) + 2
    _edit(hits, line, column, text)
    events = read_acts_csv(tmp_path)
    assert len(next(events).hits)
    named = "particle_id" if column == "particle_id_part" else column
    with pytest.raises(InputError, match=rf"event000000001-hits.csv, line {line}, column '{named}"):
        next(events)


def test_acts_noise_and_neutral_particles(simulated: Path, tmp_path: Path) -> None:
    _copy(simulated / "csv", tmp_path)
    before = next(read_acts_csv(tmp_path))
    for name in ("pv", "sv", "part", "gen", "subpart"):
        _edit(tmp_path / "event000000000-hits.csv", 5, f"particle_id_{name}", "0")
    with (tmp_path / "event000000000-particles_simulated.csv").open("a") as stream:
        stream.write("9,0,1,0,0,22,0,0,0,0,0,1,0,0,0,0\n")
    after = next(read_acts_csv(tmp_path))
    assert (after.hits.particle_id[3], after.hits.weight[3]) == (0, 0)
    assert before.particles.equals(after.particles)


# --------------------------------------------------------------------------------------- ColliderML

_IDS = pa.list_(pa.uint64())


def hits_table(**changed: list) -> pa.Table:
    columns = {
        "event_id": [4, 5],
        **{name: [[1.0, 2.0], [3.0]] for name in "xyz"},
        "volume_id": [[8, 8], [9]],
        "layer_id": [[2, 4], [2]],
        "surface_id": [[1, 2], [3]],
        "particle_id": [[0, 2], [2**64 - 1]],
        **changed,
    }
    columns["particle_id"] = pa.array(columns["particle_id"], _IDS)
    return pa.table(columns)


def particles_table(ids: list[list[int]]) -> pa.Table:
    def each(value: float) -> list[list[float]]:
        return [[value] * len(event) for event in ids]

    return pa.table(
        {
            "event_id": [4, 5],
            "particle_id": pa.array(ids, _IDS),
            "pdg_id": each(211),
            **{name: each(0.5) for name in ("vx", "vy", "vz", "px", "py", "pz")},
            "charge": each(1.0),
            "primary": each(True),
        }
    )


def test_parquet_ids_from_zero_are_raised_and_unmatched_hits_are_noise(tmp_path: Path) -> None:
    pq.write_table(hits_table(), tmp_path / "tracker_hits.parquet")
    pq.write_table(particles_table([[0, 2, 7], [1]]), tmp_path / "particles.parquet")
    first, second = read_colliderml(tmp_path / "tracker_hits.parquet")
    assert first.hits.particle_id.tolist() == [1, 3]
    assert first.particles.particle_id.tolist() == [1, 3, 8]
    assert second.hits.particle_id.tolist() == [0]
    assert second.hits.weight.tolist() == [0]
    assert second.particles.particle_id.tolist() == [1]


def test_parquet_without_particles_claims_nothing_about_them(tmp_path: Path) -> None:
    pq.write_table(hits_table(), tmp_path / "alone.parquet")
    first, _ = read_colliderml(tmp_path / "alone.parquet")
    assert first.hits.particle_id.tolist() == [0, 2]
    assert first.particles.particle_id.tolist() == [2]
    assert first.particles.px.isna().all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x": [[1.0, 2.0], [float("nan")]]}, r"row 1 \(event 5\), element 0, column 'x'"),
        ({"y": [[1.0, None], [3.0]]}, r"row 0 \(event 4\), element 1, column 'y'.*missing"),
        ({"z": [[1.0], [3.0]]}, r"row 0 \(event 4\), column 'z': the list has 1 values"),
        ({"z": [["1", "2"], ["3"]]}, "schema, column 'z': not a list of float32"),
        ({"z": [1.0, 2.0]}, "schema, column 'z': not a list of float32 but double"),
        ({"particle_id": [[2, 3], [1]]}, "element 1, column 'particle_id': 3 is no particle"),
        ({"event_id": [4, 4]}, "row 1, column 'event_id': 4 comes twice"),
        ({"event_id": [4, 6]}, "row 1, column 'event_id': event 5 stands where"),
    ],
)
def test_broken_parquet_is_named(tmp_path: Path, changed: dict, words: str) -> None:
    pq.write_table(hits_table(**changed), tmp_path / "tracker_hits.parquet")
    pq.write_table(particles_table([[0, 2], [1]]), tmp_path / "particles.parquet")
    with pytest.raises(InputError, match=words):
        list(read_colliderml(tmp_path / "tracker_hits.parquet"))


def test_parquet_without_a_column_and_torn_parquet_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hits.parquet"
    pq.write_table(hits_table().drop_columns("z"), path)
    with pytest.raises(InputError, match="schema, column 'z': the column is missing"):
        read_colliderml(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"hits\.parquet.*cut short"):
        read_colliderml(path)


def test_simulation_without_digitisation_has_no_measured_positions(simulated: Path) -> None:
    (shard,) = (simulated / "tracker_hits").glob("*.parquet")
    with pytest.raises(InputError, match=r"column 'x'.*positions='true'"):
        list(read_colliderml(shard))


@pytest.mark.parametrize(("number", "hits", "particles"), [(0, 465, 51), (1, 639, 54)])
def test_real_display_event(number: int, hits: int, particles: int) -> None:
    event = read_colliderml(shared("colliderml") / f"event_{number}.json.gz")
    assert isinstance(event, Event)
    assert (len(event.hits), len(event.particles)) == (hits, particles)
    assert set(event.hits.particle_id) == set(event.particles.particle_id)
    assert set(event.particles.q) == {-1, 1}


DISPLAY = """{"vertex": [0, 0, 1], "metadata": {"event_id": 3}, "all_tracker_hits": [
{"HIT_ID": 1, "x": 6, "y": 8, "z": 3, "pT": 5, "pdg_id": 13, "particle_id": 9, "volume_id": 17},
{"HIT_ID": 2, "x": 3, "y": 4, "z": 2, "pT": 5, "pdg_id": 13, "particle_id": 9, "volume_id": 17}],
"tracks": [{"particle_id": 9, "hit_ids": [1, 2]}]}"""


def test_display_momentum_points_to_the_nearest_hit(tmp_path: Path) -> None:
    path = tmp_path / "event.json"
    path.write_text(DISPLAY)
    event = read_colliderml(path)
    assert event.particles[["px", "py", "pz", "vz"]].iloc[0].tolist() == [3, 4, 1, 1]
    assert event.particles.q.tolist() == [-1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"x": 3', '"x": NaN', "all_tracker_hits entry 1, column 'x'"),
        ('"x": 3, ', "", "entry 1, column 'x': the value is missing"),
        ('"x": 3', '"x": true', "entry 1, column 'x': True is not a number"),
        ('"HIT_ID": 2', '"HIT_ID": 1', "entry 1, column 'HIT_ID': this hit stands in"),
        ('"z": 2, "pT": 5', '"z": 2, "pT": 4', "column 'pT': particle 9 has 2 values"),
        ("[1, 2]", "[1, 3]", "tracks entry 0, column 'hit_ids': hit 3"),
        ('"vertex": [0, 0, 1], ', "", "column 'vertex'"),
        ('"tracks"', "", "line 4, column 1: not JSON"),
    ],
)
def test_broken_display_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "event.json"
    path.write_text(DISPLAY.replace(old, new))
    with pytest.raises(InputError, match=words):
        read_colliderml(path)
