"""Simulated collision events: Pythia 8 → HepMC3 → ACTS' Generic detector with Fatras → `Event`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sml_kernel.tracking import detector, generator
from sml_kernel.tracking.events import Event
from sml_kernel.tracking.readers import read_acts_csv

#: Events are made this many at a time, each chunk from seeds of its own: the same events come
#: out whatever the number of workers, and more events extend fewer.
CHUNK = 10
PROCESSES = ("ttbar", "gun")
_CACHE_FORMAT = 1  # raise when the same parameters would give other events


@dataclass(frozen=True)
class _Setup:
    """All that an event depends on but its number."""

    process: str
    pileup: int
    seed: int
    smear: bool
    noise: float
    gun_particles: int
    generator: str
    simulation: str
    cache_format: int = _CACHE_FORMAT

    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def simulate(
    n_events: int,
    pileup: int = 0,
    seed: int = 0,
    *,
    process: str = "ttbar",
    smear: bool = True,
    noise: float = 0.0,
    gun_particles: int = 30,
    workers: Any = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[Event]:
    """Simulate collisions in ACTS' Generic detector, 2 T field.

    Parameters
    ----------
    n_events
        How many events.
    pileup
        Soft collisions on top of each hard one (fixed number). With the gun: further vertices.
    seed
        Same seed, same events, on any number of workers; the first events of a longer series are
        those of a shorter one.
    process
        ``"ttbar"``, from Pythia 8 at 14 TeV with minimum-bias pile-up, or ``"gun"``: pions, no
        generator needed. Without Pythia ``"ttbar"`` warns and the gun serves.
    smear
        Smear positions by `sml_kernel.tracking.detector.RESOLUTION_MM`; False gives true ones.
    noise
        Noise hits as a fraction of the hits of particles.
    gun_particles
        Pions a vertex, with the gun.
    workers
        What `sml_kernel.launch` gave: chunks are simulated on them. They must see `cache`. None:
        here, one chunk after the other.
    cache
        Folder where chunks are kept, by their parameters. Default ``~/.cache/sml_kernel/events``
        (``$XDG_CACHE_HOME``).
    progress
        Show a progress bar.

    Returns
    -------
    list of Event
        Particles of pT > 150 MeV, \\|η\\| < 4 and those they made in the detector.

    Raises
    ------
    ValueError
        A number below zero, or an unknown process.
    """
    if process not in PROCESSES:
        raise ValueError(f"unknown process {process!r}; known: {', '.join(PROCESSES)}")
    if n_events < 0 or pileup < 0 or noise < 0 or not 0 <= seed < 2**32:
        raise ValueError("n_events, pileup and noise are not below 0, and 0 <= seed < 2**32")
    if process == "ttbar" and not generator.available():
        warnings.warn(
            "Pythia 8 is not installed (pip install 'sml-kernel[physics]'): "
            "particles come from a gun instead",
            stacklevel=2,
        )
        process = "gun"
    setup = _Setup(
        process,
        pileup,
        seed,
        smear,
        noise,
        gun_particles if process == "gun" else 0,
        _version("pythia8mc") if process == "ttbar" else "gun",
        _version("pyacts"),
    )
    folder = (Path(cache) if cache is not None else _default_cache()) / setup.key()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parameters.json").write_text(json.dumps(asdict(setup), indent=2) + "\n")
    _make_chunks(setup, folder, -(-n_events // CHUNK), workers, progress)
    chunks = [_read_chunk(folder, chunk) for chunk in range(-(-n_events // CHUNK))]
    return [event for chunk in chunks for event in chunk][:n_events]


def _make_chunks(setup: _Setup, folder: Path, n_chunks: int, workers: Any, progress: bool) -> None:
    missing = [chunk for chunk in range(n_chunks) if not _chunk_folder(folder, chunk).exists()]
    with tqdm(total=len(missing), desc="simulating", unit="chunk", disable=not progress) as bar:
        if workers is None:
            for chunk in missing:
                _make_chunk(setup, folder, chunk)
                bar.update()
        else:
            from distributed import as_completed

            made = workers.client.map(
                _make_chunk, [setup] * len(missing), [folder] * len(missing), missing, pure=False
            )
            for future in as_completed(made):
                future.result()
                bar.update()


def _make_chunk(setup: _Setup, folder: Path, chunk: int) -> None:
    """Simulate one chunk and put it in its place at once, or not at all."""
    seeds = np.random.SeedSequence([setup.seed, chunk])
    with tempfile.TemporaryDirectory(prefix="sml-simulate-") as scratch:
        csv = Path(scratch) / "csv"
        csv.mkdir()
        _simulate_csv(setup, seeds, Path(scratch), csv)
        events = [_finish(event, setup, chunk, k) for k, event in enumerate(read_acts_csv(csv))]
    if setup.noise:
        events = _with_noise(events, setup, seeds)
    _write_chunk(folder, chunk, events)


def _simulate_csv(setup: _Setup, seeds: np.random.SeedSequence, scratch: Path, csv: Path) -> None:
    hard, soft, fatras = (int(seed) % 900_000_000 + 1 for seed in seeds.generate_state(3))
    if setup.process == "gun":
        detector.simulate_gun(1 + setup.pileup, setup.gun_particles, CHUNK, fatras, csv)
        return
    generator.write_hepmc3(scratch / "hard.hepmc3", "ttbar", CHUNK, hard)
    if setup.pileup:
        generator.write_hepmc3(scratch / "soft.hepmc3", "minimum-bias", CHUNK * setup.pileup, soft)
    detector.simulate_hepmc3(
        scratch / "hard.hepmc3", scratch / "soft.hepmc3", setup.pileup, CHUNK, fatras, csv
    )


def _finish(event: Event, setup: _Setup, chunk: int, index: int) -> Event:
    number = chunk * CHUNK + index
    hits = event.hits
    if setup.smear:
        hits = detector.smear(hits, np.random.default_rng([setup.seed, number, 1]))
    return Event.of(f"simulated-{setup.seed}-{number:06d}", hits, event.particles)


def _with_noise(events: list[Event], setup: _Setup, seeds: np.random.SeedSequence) -> list[Event]:
    pool = pd.concat([event.hits for event in events], ignore_index=True)
    random = np.random.default_rng(seeds.spawn(1)[0])
    return [
        event.with_hits(detector.add_noise(event.hits, setup.noise, pool, random))
        for event in events
    ]


def _write_chunk(folder: Path, chunk: int, events: list[Event]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    for table in ("hits", "particles"):
        parts = {event.name: getattr(event, table) for event in events}
        whole = pd.concat(parts, names=["event"]).reset_index(level="event")
        whole.to_parquet(partial / f"{table}.parquet", index=False)
    partial.chmod(0o755)
    try:
        partial.rename(_chunk_folder(folder, chunk))
    except OSError:  # another process made the same chunk in the meantime
        shutil.rmtree(partial)


def _read_chunk(folder: Path, chunk: int) -> list[Event]:
    place = _chunk_folder(folder, chunk)
    hits = pd.read_parquet(place / "hits.parquet").groupby("event", sort=True)
    particles = dict(iter(pd.read_parquet(place / "particles.parquet").groupby("event")))
    return [Event.of(str(name), table, particles[name]) for name, table in hits]


def _chunk_folder(folder: Path, chunk: int) -> Path:
    return folder / f"chunk-{chunk:06d}"


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sml_kernel" / "events"


def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)
