"""What a server is told of a fit: all networks of an ensemble, asked in one request.

`ensemble` gives the arguments of `sml_kernel.serving.Servable`, which this package does not import;
the server imports `learned_ratio`. Events of a request are new ones: as in `Fit.ratio`, they are
scored by the members of all folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sml_kernel.sbi.campaign.scoring import Part, ScoringError, parameters
from sml_kernel.sbi.scorecard.sums import Sums
from sml_kernel.sbi.stack.evaluation import logits
from sml_kernel.sbi.stack.perceptrons import Perceptron

if TYPE_CHECKING:
    from sml_kernel.sbi.fit import Fit

_EVENTS, _MEMBERS = 1 << 12, 256  # scored at a time: 4 MiB of logits, however many there are
_EXAMPLE = 4  # events of the problem


class Answer(NamedTuple):
    """What is said of events: [N] of one ratio, [N, R] of R in the order of `Fit.pairs`.

    Attributes
    ----------
    mean
        The ensemble's ratio.
    spread
        Standard deviation over members: of the ratio, or of its logarithm where the combination is
        geometric; nan for a single member.
    """

    mean: Tensor
    spread: Tensor


class Ensemble(nn.Module):
    """The members of R ratios.

    Parameters
    ----------
    shape
        Of every member.
    tensors
        ``mean`` and ``width`` [D], by which members see features, and ``members 0``, ``members 1``,
        … [M, P] of each ratio.
    how
        ``"arithmetic"`` or ``"geometric"``.
    """

    def __init__(self, shape: Perceptron, tensors: Mapping[str, Tensor], how: str) -> None:
        super().__init__()
        self.shape, self.how = shape, how
        self.ratios = sum(name.startswith("members ") for name in tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Answer:
        """[N, D] features → the ensemble's ratios and their spread."""
        seen = (x - self.get_buffer("mean")) / self.get_buffer("width")
        found = [self._of(each, seen) for each in range(self.ratios)]
        mean, spread = (torch.from_numpy(np.stack(each, 1)) for each in zip(*found, strict=True))
        return Answer(mean, spread) if self.ratios > 1 else Answer(mean[:, 0], spread[:, 0])

    def _of(self, ratio: int, seen: Tensor) -> tuple[np.ndarray, np.ndarray]:
        members = self.get_buffer(f"members {ratio}")
        parts = [self._sums(members, chunk) for chunk in seen.split(_EVENTS)]
        mean = np.concatenate([each.combine(self.how) for each in parts])
        if len(members) == 1:
            return mean, np.full_like(mean, np.nan)
        return mean, np.concatenate([each.sigma(self.how) for each in parts])

    def _sums(self, members: Tensor, seen: Tensor) -> Sums:
        sums = Sums(len(seen))
        for some in members.split(_MEMBERS):
            sums.add(logits(self.shape, some, seen).cpu().numpy())
        return sums


def ensemble(fit: Fit, how: str) -> dict[str, Any]:
    """All ratios of a fit, by the members that are done.

    Raises
    ------
    ValueError
        A combination that needs the ratio of each member (``"median"``).
    ScoringError
        A ratio has no member that is done.
    """
    if how not in ("arithmetic", "geometric"):
        raise ValueError(f"served is the arithmetic or the geometric mean, not the {how}")
    events = fit.campaign.events
    tensors = {name: torch.tensor(getattr(events, name)) for name in ("mean", "width")}
    for number, pair in enumerate(fit.pairs):
        stacks = list(parameters(fit.campaign, Part(pair, None, 0, 0)))
        if not stacks:
            raise ScoringError(f"no member of {' / '.join(pair)} is done: fit it first")
        tensors[f"members {number}"] = torch.cat([each for _, each in stacks])
        shape = stacks[0][0]
    pairs = [list(pair) for pair in fit.pairs]
    return {
        "call": Ensemble(shape, tensors, how),
        "example": (np.ascontiguousarray(events.problem.features[:_EXAMPLE], np.float32),),
        "builder": f"{__name__}:learned_ratio",
        "arguments": {"shape": asdict(shape), "how": how, "pairs": pairs},
        "parameters": tensors,
        "inputs": [("events", "float32", (shape.inputs,))],
        "run": str(fit.folder),
    }


def learned_ratio(arguments: Mapping[str, Any], tensors: dict[str, Tensor], _: Path) -> Ensemble:
    """Builder of the server."""
    shape = dict(arguments["shape"])
    shape["hidden"] = tuple(shape["hidden"])
    return Ensemble(Perceptron(**shape), tensors, arguments["how"])
