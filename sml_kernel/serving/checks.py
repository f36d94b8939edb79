"""Served equals direct: the same input through the server and through the module here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.serving.errors import MismatchError
from sml_kernel.serving.servable import Servable, at_least

if TYPE_CHECKING:
    from sml_kernel.serving.client import Service

_ROWS_MERGER = "sml_kernel.serving.merging:rows"


@dataclass(frozen=True)
class Comparison:
    """What served and direct answers differ by.

    Attributes
    ----------
    model, transport
        What was asked, and how.
    max_difference
        Largest |served − direct| over all outputs; inf where one is nan and the other is not.
    scale
        Largest finite |direct|, at least 1: the difference is judged relative to it.
    rows
        Rows of the input.
    """

    model: str
    transport: str
    max_difference: float
    scale: float
    rows: int


def compare(
    service: Service, model: Servable, transport: str, *, tolerance: float = 1e-5
) -> Comparison:
    """Send the example and compare with the module called directly.

    An example that is all zeros could hide rows that are mixed up. So of a model whose rows are
    independent and whose inputs are floating-point numbers, three rows are sent with standard
    normal noise (of a fixed seed) added.

    Raises
    ------
    MismatchError
        They differ by more than `tolerance` times the scale, or in shape or type.
    """
    example = _probe(model)
    given = dict(zip([each.name for each in model.inputs], example, strict=True))
    answer = service.infer(model.name, given, transport=transport)
    served: tuple[Any, ...] = answer if isinstance(answer, tuple) else (answer,)
    direct = model.direct(example)
    difference, scale = 0.0, 1.0
    for field, theirs, ours in zip(model.outputs, served, direct, strict=True):
        if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
            raise MismatchError(
                f"{model.name!r} served gives {field.name} as {theirs.dtype} {theirs.shape}, "
                f"called directly {ours.dtype} {ours.shape}"
            )
        difference = max(difference, max_difference(np.asarray(theirs), ours))
        finite = np.abs(ours[np.isfinite(ours)].astype(float))
        scale = max(scale, finite.max(initial=0.0))
    if difference > tolerance * scale:
        raise MismatchError(
            f"{model.name!r} served over {transport} differs from the module called directly by "
            f"{difference:.3g}, more than {tolerance:g} of its scale {scale:.3g}: it is not used"
        )
    return Comparison(model.name, transport, difference, float(scale), len(example[0]))


def max_difference(served: np.ndarray, direct: np.ndarray) -> float:
    """Largest |served − direct|; equal infinities and two nan do not differ."""
    same = (served == direct) | ((served != served) & (direct != direct))
    if same.all():
        return 0.0
    apart = np.abs(served[~same].astype(float) - direct[~same].astype(float))
    return float(np.nan_to_num(apart, nan=np.inf).max())


def _probe(model: Servable) -> list[np.ndarray]:
    floating = all(values.dtype.kind == "f" for values in model.example)
    if not floating or model.merge != _ROWS_MERGER:
        return list(model.example)
    noise = np.random.default_rng(0)
    probes = [at_least(3, values) for values in model.example]
    return [
        (values + noise.standard_normal(values.shape)).astype(values.dtype) for values in probes
    ]
