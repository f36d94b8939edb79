"""What a served model is known by, and its answers, which carry that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from sml_kernel.serving.errors import InputError
from sml_kernel.serving.servable import TYPES, Field, array

_NUMPY = {triton: numpy for numpy, triton in TYPES.items()}


@dataclass(frozen=True)
class Served:
    """A model as a server describes it.

    Attributes
    ----------
    name, version
        Its name, and the version that answers.
    hash
        SHA-256 of what it is, as `Servable.hash` gives it; empty if it was not written by us.
    run
        The run that it comes from, or empty.
    inputs, outputs
        What it takes and gives. The first axis, the batch, is not in the shapes.
    max_batch
        Rows of a request at most.
    """

    name: str
    version: str
    hash: str
    run: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    max_batch: int


@final
class Answer(np.ndarray):
    """An array that knows which model it comes from: ``answer.served``.

    What is computed from it is a plain array again; a slice still is the model's answer.
    """

    served: Served

    def __array_finalize__(self, origin: Any) -> None:
        self.served = getattr(origin, "served", None)  # type: ignore[assignment]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain


def answer(values: np.ndarray, served: Served) -> Answer:
    """`values` as the answer of a model."""
    made = values.view(Answer)
    made.served = served
    return made


def described(name: str, version: str, config: dict[str, Any]) -> Served:
    """A model from Triton's configuration of it, as JSON."""
    parameters = {
        key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()
    }
    inputs, outputs = (tuple(map(_field, config[kind])) for kind in ("input", "output"))
    known = (parameters.get("hash", ""), parameters.get("run", ""))
    return Served(name, version, *known, inputs, outputs, int(config["max_batch_size"]))


def _field(said: dict[str, Any]) -> Field:
    kind = said["data_type"].removeprefix("TYPE_")
    shape = said["reshape"].get("shape", []) if "reshape" in said else said["dims"]
    return Field(said["name"], _NUMPY.get(kind, kind), tuple(map(int, shape)))


def fitting(served: Served, given: Any) -> list[np.ndarray]:
    """The arrays of a request in the order of the model's inputs.

    Parameters
    ----------
    given
        An array or tensor, several in a tuple, or a mapping by the names of the inputs.

    Raises
    ------
    InputError
        They do not fit the model: its names, types and shapes are in the error.
    """
    names = [field.name for field in served.inputs]
    if not isinstance(given, dict):
        parts = given if isinstance(given, tuple | list) and len(names) > 1 else (given,)
        if len(parts) != len(names):
            raise InputError(
                f"{served.name!r} takes {len(names)} inputs, {', '.join(names)}; "
                f"{len(parts)} were given"
            )
        given = dict(zip(names, parts, strict=True))
    if set(given) != set(names):
        raise InputError(f"{served.name!r} takes {', '.join(names)}, not {', '.join(given)}")
    arrays = [_checked(served.name, field, given[field.name]) for field in served.inputs]
    rows = {len(values) for values in arrays}
    if len(rows) > 1:
        raise InputError(f"inputs of {served.name!r} have {sorted(rows)} rows: give as many each")
    if not 1 <= max(rows) <= served.max_batch:
        raise InputError(
            f"{served.name!r} takes from 1 to {served.max_batch} rows in a request, not "
            f"{max(rows)}: ask in parts, or serve it with a larger max_batch"
        )
    return arrays


def _checked(model: str, field: Field, given: Any) -> np.ndarray:
    values = array(field.name, given)
    wanted = f"[n, {', '.join('any' if each < 0 else str(each) for each in field.shape)}]"
    shape = values.shape[1:]
    fits = len(shape) == len(field.shape) and all(
        want in (-1, got) for want, got in zip(field.shape, shape, strict=False)
    )
    if not fits:
        raise InputError(
            f"{field.name} of {model!r} is {wanted.replace(', ]', ']')}, not {list(values.shape)}"
        )
    if str(values.dtype) != field.dtype:
        raise InputError(
            f"{field.name} of {model!r} is {field.dtype}, not {values.dtype}: convert it, as in "
            f'x.astype("{field.dtype}")'
        )
    return values
