"""Graphs on disk: one memory-mapped safetensors file a graph, and an index to balance work by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch_geometric.data import Data

from sml_kernel import records

_KEPT = ("x", "edge_index", "edge_attr", "y", "weight")


@dataclass(frozen=True)
class Entry:
    """What a sampler needs to know of a graph without reading it."""

    file: str
    nodes: int
    edges: int
    weight: float


@dataclass(frozen=True)
class GraphStore:
    """Graphs in a folder, read one at a time.

    Attributes
    ----------
    folder
        Holds ``index.json`` and a file a graph.
    entries
        In the order the graphs were written.
    """

    folder: Path
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Data:
        """Graph `index`, with what training needs: x, edge_index, edge_attr, y and weight."""
        return Data.from_dict(load_file(self.folder / self.entries[index].file))

    def hash(self) -> str:
        """SHA-256 of the graphs' files: the identity of the data set."""
        return records.hash_files([self.folder / entry.file for entry in self.entries])


def write_graphs(graphs: Iterable[Data], folder: str | os.PathLike[str]) -> GraphStore:
    """Write graphs to a new folder; the index comes last, so that half a store is none."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    entries = []
    for number, graph in enumerate(graphs):
        file = f"{number:06d}.safetensors"
        save_file({name: graph[name].contiguous() for name in _KEPT}, folder / file)
        weight = float(graph.weight.sum())
        entries.append(Entry(file, int(graph.num_nodes), int(graph.num_edges), weight))
    index = json.dumps([asdict(entry) for entry in entries], indent=1)
    (folder / "index.json").write_text(index + "\n")
    return GraphStore(folder, tuple(entries))


def open_graphs(folder: str | os.PathLike[str]) -> GraphStore:
    """A store that `write_graphs` finished."""
    index = json.loads((Path(folder) / "index.json").read_text())
    return GraphStore(Path(folder), tuple(Entry(**entry) for entry in index))
