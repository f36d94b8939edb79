"""ColliderML's parquet and display JSON: what is read, and how broken files are named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sml_kernel.tracking import read_colliderml
from sml_kernel.tracking.events import Event, InputError

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


@pytest.mark.parametrize(("number", "hits", "particles"), [(0, 465, 51), (1, 639, 54)])
def test_real_display_event(shared, number: int, hits: int, particles: int) -> None:
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
