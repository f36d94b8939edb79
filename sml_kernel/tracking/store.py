"""Graphs on disk: one memory-mapped safetensors file a graph, and an index to balance work by."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch_geometric.data import Data

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
        """Graph `index`, with what training needs: x, edge_index, edge_attr, y and weight.

        Raises
        ------
        OSError
            Its file is gone or is not what was written.
        """
        path = self.folder / self.entries[index].file
        try:
            return Data.from_dict(load_file(path))
        except SafetensorError as error:
            raise OSError(f"{path} is damaged ({error}): write the graphs again") from None

    @property
    def edges(self) -> list[int]:
        """Of each graph."""
        return [entry.edges for entry in self.entries]

    def hash(self) -> str:
        """SHA-256 of the graphs' files: the identity of the data set (`hash_graphs`)."""
        return _hash(
            (entry.file, (self.folder / entry.file).read_bytes()) for entry in self.entries
        )


def write_graphs(graphs: Iterable[Data], folder: str | os.PathLike[str]) -> GraphStore:
    """Write graphs to a new folder; the index comes last, so that half a store is none."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    entries = []
    for number, graph in enumerate(graphs):
        file, content = _file(number, graph)
        (folder / file).write_bytes(content)
        weight = float(graph.weight.sum())
        entries.append(Entry(file, int(graph.num_nodes), int(graph.num_edges), weight))
    index = json.dumps([asdict(entry) for entry in entries], indent=1)
    (folder / "index.json").write_text(index + "\n")
    return GraphStore(folder, tuple(entries))


def keep_graphs(graphs: Iterable[Data], folder: str | os.PathLike[str]) -> GraphStore:
    """The store in `folder`, written if it is not there yet: all of it at once, or nothing.

    The caller knows that a store which is there holds these graphs.
    """
    folder = Path(folder)
    if not (folder / "index.json").exists():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_graphs(graphs, unfinished)
        unfinished.rename(folder)
    return open_graphs(folder)


def open_graphs(folder: str | os.PathLike[str]) -> GraphStore:
    """A store that `write_graphs` finished."""
    index = json.loads((Path(folder) / "index.json").read_text())
    return GraphStore(Path(folder), tuple(Entry(**entry) for entry in index))


def hash_graphs(graphs: Iterable[Data]) -> str:
    """The `GraphStore.hash` that a store of these graphs would have; nothing is written."""
    return _hash(_file(number, graph) for number, graph in enumerate(graphs))


def _file(number: int, graph: Data) -> tuple[str, bytes]:
    """Name and content of a graph's file: the same graph gives the same bytes."""
    tensors = {name: graph[name].contiguous() for name in _KEPT}
    return f"{number:06d}.safetensors", save(tensors)


def _hash(files: Iterable[tuple[str, bytes]]) -> str:
    """As `sml_kernel.records.hash_files` does it, of files by name."""
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
