"""A step that is repeated: recorded on a GPU as a CUDA graph, then replayed as one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch

_EAGER_STEPS = 3  # before a recording libraries must have set themselves up


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The step itself on a CPU, one CUDA graph on a GPU. Not measured on a GPU.

    Small networks' kernels take a few microseconds each, as long as Python needs to launch one.

    Parameters
    ----------
    step
        Reads and writes the same tensors at each call, waits for no result, and calls no
        generator. Every call counts: those before the recording are steps like others.
    """
    return _Graph(step, device) if device.type == "cuda" else step


class _Graph:
    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._eager, self._device = step, device
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._steps < _EAGER_STEPS:
            self._steps += 1
            self._eager()
            return
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):  # records, and runs nothing
                    self._eager()
            self._graph.replay()
