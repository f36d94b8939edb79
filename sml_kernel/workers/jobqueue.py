"""dask-jobqueue, imported without what it does to the process that imports it.

On import its runner module installs a SIGINT handler that exits: Ctrl-C in a notebook would end the
kernel instead of the cell. And it raises outside the main thread, where a widget's button runs.
"""

from __future__ import annotations

import signal

_signal = signal.signal
signal.signal = lambda *_: None
try:
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.slurm import SLURMJob
finally:
    signal.signal = _signal

__all__ = ["SLURMCluster", "SLURMJob"]
