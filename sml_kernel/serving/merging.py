"""How requests that wait together become one call, and its result an answer to each.

A merger takes the inputs of each request and returns the inputs of one call, and the function that
cuts the call's outputs into those of each request. Another one than `rows` is named by a servable
as ``"package.module:function"``; the server imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Split = Callable[[Tensors], list[Tensors]]


def rows(requests: Sequence[Tensors]) -> tuple[Tensors, Split]:
    """Join along the first axis: request r has n_r rows in every input, and gets n_r back.

    Parameters
    ----------
    requests
        Of each request its inputs, [n_r, …].

    Returns
    -------
    tuple
        The inputs of one call, [Σ n_r, …], and what splits its outputs, [Σ n_r, …] each.
    """
    counts = [len(request[0]) for request in requests]

    def split(outputs: Tensors) -> list[Tensors]:
        for output in outputs:
            if output.ndim == 0 or len(output) != sum(counts):
                raise ValueError(
                    f"the model was given {sum(counts)} rows and returned "
                    f"{tuple(output.shape)}: its first axis has to be the batch"
                )
        return list(zip(*(output.split(counts) for output in outputs), strict=True))

    if len(requests) == 1:
        return tuple(requests[0]), split
    return tuple(torch.cat(parts) for parts in zip(*requests, strict=True)), split
