"""How many members train at once: one for each thread, or as many as the memory of a GPU holds."""

from __future__ import annotations

import torch

from sml_kernel.sbi.stack.perceptrons import Perceptron


def members_at_once(shape: Perceptron, batch: int, events: int, device: torch.device) -> int:
    """On a CPU the threads of torch; on a GPU what fills half of the memory that is free.

    Parameters
    ----------
    shape, batch
        Of the networks, and events a step.
    events
        Of training and validation, of the member that has most.
    device
        Where the members train.

    Returns
    -------
    int
        At least 1.
    """
    if device.type != "cuda":
        return torch.get_num_threads()
    # a step reads features, writes each layer twice, and has three columns
    numbers = batch * (shape.inputs + 2 * sum(shape.hidden) + 3)
    step_bytes = 4 * (numbers + 6 * shape.size)  # parameters, best, gradient, Adam's three
    laid_bytes = 4 * (shape.inputs + 2) * max(events, 1)  # an epoch's batches
    return max(1, torch.cuda.mem_get_info(device)[0] // 2 // (step_bytes + laid_bytes))
