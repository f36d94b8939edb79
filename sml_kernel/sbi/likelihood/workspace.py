"""Binned control regions from a pyhf workspace, which share parameters with the unbinned channel.

The workspace holds the control regions alone, with their constraints. A parameter that both sides
have (a nuisance, a free normalisation, or the strength itself) is named in `shared`; its constraint
is pyhf's and counted once. Interpolation is that of ROOT and of `likelihood.interpolation`:
code 4 for rates, 4p for shapes (pyhf: Heinrich, Feickert and Stark, JOSS 6 (2021) 2823).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sml_kernel.sbi.problems.origins import InputError

_CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
UNIT_NORMAL = "constrained by a unit normal"
_STEP = 1e-5  # of central differences: their error in −2 ln L is some 1e-8


@dataclass(frozen=True, eq=False)
class ControlRegions:
    """Binned regions; made by `control_regions`.

    Attributes
    ----------
    model
        The ``pyhf.Model``, to be reached.
    data
        [D] observed counts of all bins, then pyhf's auxiliary data.
    shared
        Names that the unbinned channel has too.
    """

    model: Any
    data: np.ndarray
    shared: tuple[str, ...] = ()

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """[Q] names as pyhf orders them; of several values, ``name[0]``, ``name[1]``, …."""
        return tuple(self.model.config.par_names)

    @cached_property
    def initial(self) -> dict[str, float]:
        """pyhf's suggestions by name."""
        return dict(zip(self.parameters, self.model.config.suggested_init(), strict=True))

    @cached_property
    def limits(self) -> dict[str, tuple[float, float]]:
        """pyhf's suggestions by name; a parameter that is fixed has both limits at its value."""
        config = self.model.config
        fixed = zip(config.suggested_bounds(), config.suggested_fixed(), strict=True)
        return {
            name: (self.initial[name],) * 2 if is_fixed else (float(low), float(high))
            for name, ((low, high), is_fixed) in zip(self.parameters, fixed, strict=True)
        }

    @cached_property
    def centres(self) -> dict[str, float]:
        """Auxiliary measurement of each parameter that a unit normal constrains, by name."""
        found, auxiliary = {}, self.data[self.model.config.nmaindata :].tolist()
        for name in self.model.config.auxdata_order:
            size = self.model.config.param_set(name).n_parameters
            values, auxiliary = auxiliary[:size], auxiliary[size:]
            if self._kind(name) == UNIT_NORMAL:
                found[name] = float(values[0])
        return found

    def value(self, parameters: np.ndarray) -> float:
        """−2 ln of pyhf's probability, constraints included, at [Q]; nan where a rate is < 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(-2 * np.asarray(self.model.logpdf(parameters, self.data)).item())

    def gradient(self, parameters: np.ndarray) -> np.ndarray:
        """[Q] derivatives of `value`, by central differences."""
        found = np.zeros(len(parameters))
        for place, value in enumerate(parameters):
            step = _STEP * max(1.0, abs(value))
            ends = []
            for sign in (1, -1):
                moved = np.array(parameters, float)
                moved[place] += sign * step
                ends.append(self.value(moved))
            found[place] = (ends[0] - ends[1]) / (2 * step)
        return found

    def thrown(self, parameters: np.ndarray, rng: np.random.Generator) -> ControlRegions:
        """The same regions with counts and auxiliary measurements thrown at [Q]."""
        expected = np.asarray(self.model.expected_actualdata(parameters), float)
        pieces = [rng.poisson(expected).astype(float)]
        for name in self.model.config.auxdata_order:
            about = self.model.config.param_set(name)
            values = np.asarray(parameters)[self.model.config.par_slice(name)]
            if about.pdf_type == "normal":
                pieces.append(rng.normal(values, about.width()))
            else:
                pieces.append(rng.poisson(values * about.factors).astype(float))
        return replace(self, data=np.concatenate(pieces))

    def check(self, free: Sequence[str], constrained: Sequence[str]) -> None:
        """Compare names with those of an unbinned channel.

        Raises
        ------
        InputError
            A shared name is missing on a side; one that is on both sides is not said to be shared;
            or it is free on one side and constrained on the other, or not by a unit normal.
        """
        own, others = set(self.model.config.par_order), [*free, *constrained]
        for side, names in (("the control regions", own), ("the unbinned channel", set(others))):
            if missing := [name for name in self.shared if name not in names]:
                raise InputError(
                    f"shared {', '.join(missing)} not in {side}, which have "
                    f"{', '.join(sorted(names))}"
                )
        if clash := [name for name in others if name in own and name not in self.shared]:
            raise InputError(
                f"{', '.join(clash)} on both sides: say shared={clash}, or rename one of them"
            )
        for name in self.shared:
            kind, wanted = self._kind(name), "free" if name in free else UNIT_NORMAL
            if kind != wanted:
                raise InputError(
                    f"{name} is {wanted} in the unbinned channel and {kind} in the control "
                    "regions: a shared parameter must be the same on both sides"
                )

    def _kind(self, name: str) -> str:
        about = self.model.config.param_set(name)
        if about.n_parameters != 1:
            return f"{about.n_parameters} parameters"
        if not about.constrained:
            return "free"
        unit = about.pdf_type == "normal" and about.width() == [1.0] and about.auxdata == [0.0]
        return UNIT_NORMAL if unit else f"constrained by another {about.pdf_type}"


def control_regions(
    workspace: Mapping[str, Any] | str | Path,
    shared: Sequence[str] = (),
    measurement: str | None = None,
) -> ControlRegions:
    """Control regions of a pyhf workspace.

    Parameters
    ----------
    workspace
        The JSON object, or the path to its file. It has binned channels only.
    shared
        Parameters that the unbinned channel has under the same name.
    measurement
        Which, by name; None: the first.

    Raises
    ------
    InputError
        pyhf refuses the workspace, or it has no such measurement.
    """
    import pyhf

    if isinstance(workspace, str | Path):
        workspace = json.loads(Path(workspace).read_text())
    try:
        opened = pyhf.Workspace(workspace)
        model = opened.model(
            measurement_name=measurement, poi_name=None, modifier_settings=dict(_CODES)
        )
    except (
        pyhf.exceptions.InvalidSpecification,
        pyhf.exceptions.InvalidMeasurement,
        pyhf.exceptions.InvalidModel,
        pyhf.exceptions.SchemaNotFound,
    ) as error:
        raise InputError(f"pyhf refuses the workspace: {error}") from error
    return ControlRegions(model, np.asarray(opened.data(model), float), tuple(shared))
