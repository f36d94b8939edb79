"""Graphs on disk: memory-mapped safetensors files, one a graph or part of one, and an index.

The index is what work is balanced by, without reading a graph.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch_geometric.data import Data

_KEPT = ("x", "edge_index", "edge_attr", "y", "weight")
_OWN = "own"  # of parts only: `split_graph`


@dataclass(frozen=True)
class Entry:
    """What a sampler needs to know of a graph without reading it."""

    files: tuple[str, ...]
    nodes: int
    edges: int
    weight: float


@dataclass(frozen=True)
class GraphStore:
    """Graphs in a folder, read one at a time.

    Attributes
    ----------
    folder
        Holds ``index.json`` and a file a graph, or several if it was split (`split_graph`).
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
        ValueError
            It was split: read its `files` one by one.
        OSError
            Its file is gone or is not what was written.
        """
        (file, *others) = self.entries[index].files
        if others:
            raise ValueError(f"graph {index} lies in {1 + len(others)} parts: read them one by one")
        return self.read(file)

    def files(self, numbers: Iterable[int]) -> Iterator[str]:
        """Files of graphs, in order: what `read` takes."""
        return (file for number in numbers for file in self.entries[number].files)

    def read(self, file: str) -> Data:
        """A graph, or a part of one, which has ``own`` [E] beside the rest."""
        path = self.folder / file
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
        files = self.files(range(len(self)))
        return _hash((file, (self.folder / file).read_bytes()) for file in files)


def write_graphs(
    graphs: Iterable[Data],
    folder: str | os.PathLike[str],
    split: Callable[[Data], list[Data]] | None = None,
) -> GraphStore:
    """Write graphs to a new folder; the index comes last, so that half a store is none.

    `split` gives the parts of a graph that is too large, and the graph itself where it is not.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    entries = []
    for number, graph in enumerate(graphs):
        parts = [graph] if split is None else split(graph)
        files = []
        for place, part in enumerate(parts):
            file, content = _file(number, part, place if len(parts) > 1 else None)
            (folder / file).write_bytes(content)
            files.append(file)
        weight = float(graph.weight.sum())
        entries.append(Entry(tuple(files), int(graph.num_nodes), int(graph.num_edges), weight))
    index = json.dumps([asdict(entry) for entry in entries], indent=1)
    (folder / "index.json").write_text(index + "\n")
    return GraphStore(folder, tuple(entries))


def keep_graphs(
    graphs: Iterable[Data],
    folder: str | os.PathLike[str],
    split: Callable[[Data], list[Data]] | None = None,
) -> GraphStore:
    """The store in `folder`, written if it is not there yet: all of it at once, or nothing.

    The caller knows that a store which is there holds these graphs.
    """
    folder = Path(folder)
    if not (folder / "index.json").exists():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_graphs(graphs, unfinished, split)
        unfinished.rename(folder)
    return open_graphs(folder)


def open_graphs(folder: str | os.PathLike[str]) -> GraphStore:
    """A store that `write_graphs` finished."""
    index = json.loads((Path(folder) / "index.json").read_text())
    entries = (Entry(**{**entry, "files": tuple(entry["files"])}) for entry in index)
    return GraphStore(Path(folder), tuple(entries))


def hash_graphs(graphs: Iterable[Data]) -> str:
    """The `GraphStore.hash` that a store of these graphs would have; nothing is written."""
    return _hash(_file(number, graph) for number, graph in enumerate(graphs))


def _file(number: int, graph: Data, part: int | None = None) -> tuple[str, bytes]:
    """Name and content of a graph's file: the same graph gives the same bytes."""
    kept = _KEPT if part is None else (*_KEPT, _OWN)
    tensors = {name: graph[name].contiguous() for name in kept}
    place = "" if part is None else f"-{part:03d}"
    return f"{number:06d}{place}.safetensors", save(tensors)


def _hash(files: Iterable[tuple[str, bytes]]) -> str:
    """As `sml_kernel.records.hash_files` does it, of files by name."""
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
