"""What ACTS itself writes, as CSV and as parquet, is read as the same events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sml_kernel.tracking import read_acts_csv, read_colliderml
from sml_kernel.tracking.events import Event, InputError
from sml_kernel.tracking.readers import geometry_columns, pack_barcode


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


def test_simulation_without_digitisation_has_no_measured_positions(simulated: Path) -> None:
    (shard,) = (simulated / "tracker_hits").glob("*.parquet")
    with pytest.raises(InputError, match=r"column 'x'.*positions='true'"):
        list(read_colliderml(shard))
