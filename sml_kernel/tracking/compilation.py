"""The network through torch.compile, with shapes that do not change from graph to graph."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import warnings

from sml_kernel.tracking.model import InteractionGNN


def compiled(network: InteractionGNN) -> InteractionGNN:
    """A view of a network whose perceptrons run compiled.

    Rows are padded to one block on a CPU and to one of eight sizes an octave on a GPU, and what was
    padded is cut off again: logits and gradients are those of the network up to rounding. The
    first call on each shape compiles, which takes a minute on two cores.

    Parameters
    ----------
    network
        Its weights are shared, not copied: training one trains the other.

    Returns
    -------
    InteractionGNN
        Where there is no C++ compiler it warns, and gives a network that runs uncompiled.
    """
    view = copy.copy(network)
    compiler = os.environ.get("CXX", "")
    if not any(shutil.which(name) for name in (compiler, "g++", "clang++") if name):
        warnings.warn(
            "no C++ compiler (CXX, g++ or clang++) is on the PATH: the network runs uncompiled",
            stacklevel=2,
        )
        return view
    view.runner = dataclasses.replace(network.runner, compiles=True)
    return view
