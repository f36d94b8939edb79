"""Graphs that acorn (gitlab.cern.ch/gnn4itkteam/acorn) wrote, as `build_graphs` would give them.

acorn keeps a torch_geometric `Data` an event in a ``.pyg`` file, a pickle of `torch.save`. Only
tensors, plain values and the classes that such a `Data` consists of are loaded: code that a file
holds does not run. acorn has named things in two ways; both are read (newer, older):

============================  ===============  ====================================================
``edge_index``                                 [2, E] hits that each edge joins
``hit_r, hit_phi, hit_z``     ``r, phi, z``    [N] in mm and radians
``edge_y``                    ``y``            [E] whether an edge is a true segment
``edge_weights``              ``weights``      [E] weight in the loss
``track_edges``                                [2, T] true segments
``track_to_edge_map``         ``truth_map``    [T] the edge that each is, −1 for none
``track_particle_id``         ``particle_id``  [T] whose each is
``track_particle_pt``         ``pt``           [T] its transverse momentum
============================  ===============  ====================================================
"""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from sml_kernel.tracking.events import Event, InputError
from sml_kernel.tracking.graphs import unlabelled
from sml_kernel.tracking.hits import Hits

_GEV = {"MeV": 1e-3, "GeV": 1.0}
#: Of particles that leave true segments; outside, the unit is not what was said.
_LIKELY_MEDIAN_PT_GEV = (0.05, 50.0)
#: What a file may hold besides tensors and plain values. Stages append their settings, a dict that
#: is Lightning's, which need not be installed: a plain dict takes its place.
_ALLOWED: list[Any] = [
    Data,
    DataEdgeAttr,
    DataTensorAttr,
    GlobalStorage,
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
]


def read_acorn(path: str | os.PathLike[str], *, pt_unit: str = "MeV") -> Data:
    """Read a graph that acorn wrote.

    Parameters
    ----------
    path
        A ``.pyg`` file of its graph construction or of a later stage.
    pt_unit
        Of the transverse momenta in the file: ``"MeV"``, as acorn's ITk readers write them, or
        ``"GeV"``, as its TrackML reader does.

    Returns
    -------
    torch_geometric.data.Data
        What `build_graphs` gives, of the edges in the file, for `train`, `score_segments`,
        `find_tracks` and `write_graphs`. Edges are turned to lead outwards (in √(r² + z²));
        ``edge_attr`` is worked out from the hits. Where the file is silent: ``y`` is whether an
        edge is among ``track_edges``, ``weight`` is 1, ``pt_gev`` 0, ``hit_id`` counts from 1, and
        each hit is on a ``layer`` of its own, so that `join_segments` sees no overlapping modules
        (files with ``volume_id`` and ``layer_id`` tell them). ``true_segments`` counts all of
        ``track_edges``, whatever their pT. Hits on none have ``particle_id`` 0.

    Raises
    ------
    InputError
        The file is missing, cut short, no graph or holds anything that is not on the list of what
        may be loaded; a field is missing, or of another length or kind than its graph asks for.

    Notes
    -----
    Networks read by `InteractionGNN.from_acorn` ask for features as acorn prepared them, which
    are not those of this graph but for r, φ and z (acorn divides φ by 3.14 or π).
    """
    if pt_unit not in _GEV:
        raise ValueError(f"unknown unit {pt_unit!r}; known: {', '.join(_GEV)}")
    file = _File(Path(path), _load(Path(path)))
    hits = _hits_table(file)
    edges = file.indices("edge_index", below=len(hits), advice="graph construction writes it")
    segments = _segments(file, len(hits))
    hits["particle_id"], pt_gev = _truth(file, segments, len(hits), _GEV[pt_unit])
    hits["weight"] = (hits.particle_id != 0).astype(float)
    event = Event.of(file.path.stem, hits, _particles(hits.particle_id, pt_gev))
    edges = _outwards(edges, np.hypot(hits.r, hits.z).to_numpy())
    found = np.isin(_pairs(edges), _pairs(segments))
    y = file.values("edge_y", "y", length=edges.shape[1])
    if y is None and "track_edges" not in file.held:
        raise file.lacks("edge_y", "y", advice="nor track_edges, so no truth to train or score by")
    weight = file.values("edge_weights", "weights", length=edges.shape[1])
    graph = unlabelled(event, Hits(event), edges)
    graph.y = torch.from_numpy(found if y is None else y != 0).float()
    graph.weight = torch.ones(len(graph.y)) if weight is None else torch.from_numpy(weight).float()
    graph.true_segments = segments.shape[1]
    graph.kept_segments = int(np.isin(_pairs(segments), _pairs(edges)).sum())
    graph.name = str(file.held.get("event_id", file.path.stem))
    return graph


@dataclass(frozen=True)
class _File:
    """What a file holds, by name; every complaint names file and field."""

    path: Path
    held: dict[str, Any]

    def values(self, *names: str, length: int | None = None) -> np.ndarray | None:
        """[length] the first of these fields that is there, None if there is none."""
        name = next((name for name in names if name in self.held), None)
        if name is None:
            return None
        value = self.held[name]
        if not isinstance(value, Tensor) or value.dim() != 1:
            raise self.wrong(name, f"not one number each but {_kind(value)}")
        if length is not None and len(value) != length:
            raise self.wrong(name, f"{len(value)} values where {length} belong")
        if not torch.isfinite(value).all():
            raise self.wrong(name, "a value is not finite")
        return value.numpy()

    def indices(self, name: str, below: int, advice: str) -> np.ndarray:
        """[2, K] pairs of hits."""
        if name not in self.held:
            raise self.lacks(name, advice=advice)
        value = self.held[name]
        whole = isinstance(value, Tensor) and not value.is_floating_point()
        if not whole or value.dim() != 2 or value.shape[0] != 2:
            raise self.wrong(name, f"not two rows of whole numbers but {_kind(value)}")
        if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < below:
            raise self.wrong(name, f"goes beyond the {below} hits (0 … {below - 1})")
        return value.numpy().astype(np.int64)

    def lacks(self, *names: str, advice: str) -> InputError:
        have = ", ".join(sorted(self.held))
        return InputError(f"{self.path}: no field {' or '.join(names)} ({advice}); it has: {have}")

    def wrong(self, name: str, what: str) -> InputError:
        return InputError(f"{self.path}, field {name!r}: {what}; write the file again with acorn")


def _load(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds something that is neither a tensor, a plain value nor a part of a "
            "torch_geometric Data, and is not loaded, as it might run code. Whoever trusts it can "
            "write the tensors to a new Data with torch.save. "
            f"torch says: {str(error).splitlines()[0]}"
        ) from error
    except (EOFError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no file of torch.save, or cut short ({error})") from None
    if not isinstance(held, Data):
        raise InputError(f"{path} holds no torch_geometric Data but {_kind(held)}")
    return held.to_dict()


def _hits_table(file: _File) -> pd.DataFrame:
    r = file.values("hit_r", "r")
    if r is None:
        raise file.lacks("hit_r", "r", advice="put r, phi and z among acorn's hit_features")
    table = {"r": r}
    for name in ("phi", "z"):
        value = file.values(f"hit_{name}", name, length=len(r))
        if value is None:
            raise file.lacks(f"hit_{name}", name, advice="put it among acorn's hit_features")
        table[name] = value
    own = np.arange(1, len(r) + 1)
    where = [file.values(f"hit_{name}", name, length=len(r)) for name in ("volume_id", "layer_id")]
    volume, layer = (np.zeros(len(r)), own) if any(part is None for part in where) else where
    hit_id = file.values("hit_id", length=len(r))
    hits = pd.DataFrame(table).astype(float)
    return hits.assign(
        x=hits.r * np.cos(hits.phi),
        y=hits.r * np.sin(hits.phi),
        hit_id=own if hit_id is None else hit_id,
        volume_id=volume,
        layer_id=layer,
        module_id=0,
    )


def _segments(file: _File, n_hits: int) -> np.ndarray:
    """[2, T] true segments, none where the file tells of none."""
    if "track_edges" not in file.held:
        return np.zeros((2, 0), np.int64)
    return file.indices("track_edges", below=n_hits, advice="data reading writes it")


def _truth(
    file: _File, segments: np.ndarray, n_hits: int, to_gev: float
) -> tuple[np.ndarray, np.ndarray]:
    """Particle and its pT in GeV of each hit, 0 where no true segment says: [N], [N]."""
    particle, pt_gev = np.zeros(n_hits, np.int64), np.zeros(n_hits)
    if not segments.size:
        return particle, pt_gev
    of_segment = file.values("track_particle_id", "particle_id", length=segments.shape[1])
    if of_segment is None:
        raise file.lacks(
            "track_particle_id", "particle_id", advice="put it among acorn's track_features"
        )
    pt = file.values("track_particle_pt", "pt", length=segments.shape[1])
    for hits in segments:
        particle[hits] = of_segment
        if pt is not None:
            pt_gev[hits] = pt * to_gev
    if pt is not None:
        low, high = _LIKELY_MEDIAN_PT_GEV
        if not low <= (median := float(np.median(pt * to_gev))) <= high:
            raise InputError(
                f"{file.path}: half of the true segments are of pT below {median:g} GeV, which no "
                "event is like: give the unit that the file was written in, pt_unit='MeV' or 'GeV'"
            )
    return particle, pt_gev


def _particles(particle_id: pd.Series, pt_gev: np.ndarray) -> pd.DataFrame:
    """As far as a graph knows them: their pT."""
    unknown = dict.fromkeys(("vx", "vy", "vz", "pz"), np.nan)
    table = pd.DataFrame({"particle_id": particle_id, "px": pt_gev})
    table = table[table.particle_id != 0].drop_duplicates("particle_id")
    return table.assign(py=0.0, particle_type=0, q=0, primary=False, **unknown)


def _outwards(edges: np.ndarray, depth: np.ndarray) -> np.ndarray:
    inwards = depth[edges[0]] > depth[edges[1]]
    return np.where(inwards, edges[::-1], edges)


def _pairs(edges: np.ndarray) -> np.ndarray:
    """One number for each pair of hits, in either direction: [2, K] → [K]."""
    low, high = edges.min(axis=0), edges.max(axis=0)
    return low << 32 | high


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and {value.dtype}"
    return f"a {type(value).__name__}"
