"""What all figures share: colours, size, and HoloViews with its JavaScript inline."""

from __future__ import annotations

import sys
from typing import Any

# told apart by colour-blind readers too
TRUE, FALSE, GREY = "#0072B2", "#D55E00", "#9a9a9a"
FRAME = {"frame_width": 340, "frame_height": 240}


def holoviews() -> Any:
    """HoloViews with its JavaScript inline: hvplot's own import would load it from a CDN.

    It goes into the output of the cell that draws first, once (3 MB), and again when that very
    cell is run anew, as the notebook would else be saved without.
    """
    import holoviews as hv
    from holoviews.ipython import notebook_extension

    cell = _this_cell()
    if not _script_cell or (cell and cell in _script_cell):
        notebook_extension.inline = True
        sys.modules.pop("hvplot.pandas", None)
        import hvplot.pandas  # noqa: F401  registers .hvplot on tables, publishes the script

        _script_cell[:] = [cell]
    return hv


_script_cell: list[str | None] = []  # empty, or the cell that the JavaScript went to


def _this_cell() -> str | None:
    """Id of the notebook cell that is being run, where the front end tells it."""
    from IPython import get_ipython

    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return (parent or {}).get("metadata", {}).get("cellId")
