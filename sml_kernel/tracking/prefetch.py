"""The next graph is read while the current one is computed: one thread, the same order."""

from __future__ import annotations

import contextlib
import mmap
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch_geometric.data import Data

from sml_kernel.tracking.store import GraphStore

Item = TypeVar("Item")
Value = TypeVar("Value")


@contextlib.contextmanager
def ahead(
    read: Callable[[Item], Value], items: Iterable[Item], depth: int = 1
) -> Iterator[Iterator[Value]]:
    """Call `read` on each item in a thread, `depth` items ahead of who takes the results.

    Parameters
    ----------
    read
        Called in the thread, on one item at a time and in their order.
    items
        Also drawn in the thread.
    depth
        Results that lie ready, or are being made, beside the one that was taken last. More hide
        a single slow read, and hold more in memory.

    Yields
    ------
    iterator
        The results in order. An error of `read` or of `items` is raised where its result would
        have been taken. The thread is gone when the block is left, however it is left; a read
        under way is waited for.
    """
    permits, left = threading.Semaphore(depth), threading.Event()
    results: queue.SimpleQueue[tuple[Value | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            for item in items:
                permits.acquire()
                if left.is_set():
                    return
                results.put((read(item), None))
            results.put((None, StopIteration()))
        except BaseException as error:  # whatever it is, it is the taker's
            results.put((None, error))

    def take() -> Iterator[Value]:
        while True:
            value, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            permits.release()
            yield value  # type: ignore[misc]  # None only beside an error

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        left.set()
        permits.release()
        thread.join()


@contextlib.contextmanager
def graphs_ahead(
    graphs: GraphStore, numbers: Iterable[int], device: torch.device
) -> Iterator[Iterator[Data]]:
    """Graphs of a store on `device`, each read and sent while the one before is computed.

    A graph that was split comes in its parts.

    See `ahead`. On a GPU a graph goes through pinned memory on a stream of its own, and whoever
    takes it waits for it on the GPU alone.
    """
    if device.type != "cuda":
        with ahead(lambda file: touched(graphs.read(file)), graphs.files(numbers)) as found:
            yield found
        return
    stream = torch.cuda.Stream(device)

    def send(file: str) -> tuple[Data, torch.cuda.Event]:
        graph = touched(graphs.read(file)).pin_memory()
        with torch.cuda.stream(stream):
            return graph.to(device, non_blocking=True), stream.record_event()

    def arrive(sent: tuple[Data, torch.cuda.Event]) -> Data:
        graph, copied = sent
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        return graph.record_stream(current)  # its memory is not given away before it is computed

    with ahead(send, graphs.files(numbers)) as found:
        yield map(arrive, found)


def touched(graph: Data) -> Data:
    """The same graph, with every page of its mapped file read into memory."""
    for _, tensor in graph:
        flat = tensor.contiguous().view(torch.uint8).flatten()
        flat[:: mmap.PAGESIZE].sum()
    return graph
