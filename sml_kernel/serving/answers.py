"""What a served model is known by, and its answers, which carry that."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from sml_kernel.serving.errors import InputError
from sml_kernel.serving.servable import BOOLEANS_AS, TYPES, Field, Servable, array

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
        What it takes and gives. The first axis, the batch, is not in the shapes, unless `ragged`.
    max_batch
        Rows of a request at most; if `ragged`, requests that are joined at most.
    ragged
        Whether a request is one thing of any size, such as a graph.
    booleans
        Names of the inputs and outputs that are sent as `BOOLEANS_AS`.
    """

    name: str
    version: str
    hash: str
    run: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    max_batch: int
    ragged: bool = False
    booleans: tuple[str, ...] = ()

    def wire(self, field: Field, values: np.ndarray) -> np.ndarray:
        """An input as it is sent: Triton's batch comes first, and no tensor has less axes."""
        if field.name in self.booleans:
            values = values.view(BOOLEANS_AS)
        if self.ragged:
            return values[None]
        return values if field.shape else values[:, None]

    def unwired(self, field: Field, values: np.ndarray) -> np.ndarray:
        """An output as the model gave it, of one that was received."""
        if field.name in self.booleans:
            values = values.view(bool)
        if self.ragged:
            return values[0]
        return values if field.shape else values.reshape(len(values))


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


def of_servable(model: Servable, version: str) -> Served:
    """A model of this process as if it were served, with any number of rows."""
    return Served(
        model.name,
        version,
        model.hash(),
        model.run,
        model.inputs,
        model.outputs,
        sys.maxsize,
        model.ragged,
    )


def described(name: str, version: str, config: dict[str, Any]) -> Served:
    """A model from Triton's configuration of it, as JSON.

    Where that is of another version than the one that answered, the hash is not known.
    """
    parameters = {
        key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()
    }
    booleans = tuple(json.loads(parameters.get("booleans", "[]")))
    inputs, outputs = (
        tuple(_field(each, booleans) for each in config[kind]) for kind in ("input", "output")
    )
    known = (parameters.get("hash", ""), parameters.get("run", ""))
    if version and parameters.get("version", version) != version:
        known = ("", "")
    most, ragged = int(config["max_batch_size"]), "ragged" in parameters
    return Served(name, version, *known, inputs, outputs, most, ragged, booleans)


def _field(said: dict[str, Any], booleans: Sequence[str]) -> Field:
    kind = "BOOL" if said["name"] in booleans else said["data_type"].removeprefix("TYPE_")
    shape = said["reshape"].get("shape", []) if "reshape" in said else said["dims"]
    return Field(said["name"], _NUMPY.get(kind, kind), tuple(map(int, shape)))


def fitting(served: Served, given: Any) -> list[np.ndarray]:
    """The arrays of a request in the order of the model's inputs.

    Parameters
    ----------
    given
        An array or tensor, several in a tuple, a mapping by the names of the inputs, or an object
        that has them as attributes, such as a graph of torch_geometric.

    Raises
    ------
    InputError
        They do not fit the model: its names, types and shapes are in the error.
    """
    names = [field.name for field in served.inputs]
    if not isinstance(given, tuple | list | dict) and all(hasattr(given, name) for name in names):
        given = {name: getattr(given, name) for name in names}
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
    arrays = [_checked(served, field, given[field.name]) for field in served.inputs]
    if served.ragged:
        return arrays
    rows = {len(values) for values in arrays}
    if len(rows) > 1:
        raise InputError(f"inputs of {served.name!r} have {sorted(rows)} rows: give as many each")
    if not 1 <= max(rows) <= served.max_batch:
        raise InputError(
            f"{served.name!r} takes from 1 to {served.max_batch} rows in a request, not "
            f"{max(rows)}: ask in parts, or serve it with a larger max_batch"
        )
    return arrays


def _checked(served: Served, field: Field, given: Any) -> np.ndarray:
    values, model = array(field.name, given), served.name
    first = "" if served.ragged else "n, "
    wanted = f"[{first}{', '.join('any' if each < 0 else str(each) for each in field.shape)}]"
    shape = values.shape if served.ragged else values.shape[1:]
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
