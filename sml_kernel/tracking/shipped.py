"""Networks that come with the package, each with the cuts of its graphs and where it is from.

A file holds the weights as `InteractionGNN.save` writes them, so that `InteractionGNN.load` reads
it too, and beside them, as JSON, the cuts and the provenance.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from sml_kernel.tracking.cuts import Cuts
from sml_kernel.tracking.model import InteractionGNN

_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Pretrained:
    """A trained network with what its use needs.

    Attributes
    ----------
    model
        Ready to score.
    cuts
        For `build_graphs`: the network knows graphs made with these.
    provenance
        Data, seeds, settings, commit, versions, and the figures on held-out events.
    """

    model: InteractionGNN
    cuts: Cuts
    provenance: dict[str, Any]

    def servable(self, name: str) -> dict[str, Any]:
        """What `sml_kernel.serving` serves of it: hits in, the track of each out."""
        from sml_kernel.tracking import served

        return served.chain(self.model, self.cuts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as one safetensors file, at once or not at all."""
        cuts = {"min_pt_gev": self.cuts.min_pt_gev, "table": self.cuts.table.to_dict("list")}
        beside = {"cuts": json.dumps(cuts), "provenance": json.dumps(self.provenance)}
        self.model.save(path, beside)


def pretrained(name: str | os.PathLike[str]) -> Pretrained:
    """A network of the package, or of a file that `Pretrained.save` wrote.

    Parameters
    ----------
    name
        ``"ttbar-pileup50"``: ttbar at pile-up 50 in ACTS' Generic detector, smeared hits; what it
        reaches is in its ``provenance``. Or the path of a ``.safetensors`` file.

    Raises
    ------
    ValueError
        There is no such network (the known are listed), or the file holds no cuts.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        path = _FOLDER / f"{name}.safetensors"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.safetensors")))
        raise ValueError(f"no pretrained network {str(name)!r}; there are: {known}")
    with safe_open(path, "pt") as stream:
        metadata = stream.metadata() or {}
    if not {"cuts", "provenance"} <= metadata.keys():
        raise ValueError(
            f"{path} holds a network without cuts: read it with InteractionGNN.load, "
            "and write it with Pretrained.save to have both"
        )
    cuts = json.loads(metadata["cuts"])
    return Pretrained(
        InteractionGNN.load(path),
        Cuts(pd.DataFrame(cuts["table"]), cuts["min_pt_gev"]),
        json.loads(metadata["provenance"]),
    )
