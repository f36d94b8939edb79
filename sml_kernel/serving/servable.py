"""What is served, as a value: what it takes and gives, and how a server makes it again.

`serving.conversion` makes one of a module, or of anything that describes itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.serving.errors import InputError, ServableError

if TYPE_CHECKING:
    from torch import Tensor

#: The types of tensors that are served: numpy's name, and Triton's.
TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
#: What is sent of booleans: the Python backend has no way for them but NumPy's, see `install`.
BOOLEANS_AS = "uint8"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Field:
    """One input or output.

    Attributes
    ----------
    name
        By which requests name it.
    dtype
        numpy's name of its type, one of `TYPES`.
    shape
        Of one row, without the first axis, which is the batch; of a model whose requests are
        ragged the whole shape. -1 is any length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            known = ", ".join(TYPES)
            raise ServableError(f"{self.name} is of type {self.dtype}; served are {known}")

    @property
    def wire_type(self) -> str:
        """Triton's name of the type that is sent."""
        return TYPES[BOOLEANS_AS if self.dtype == "bool" else self.dtype]


@dataclass(frozen=True, eq=False)
class Servable:
    """A model that a server can make again, and this process can call.

    Attributes
    ----------
    name
        By which requests name it: letters, digits, ``_``, ``.`` and ``-``.
    call
        The model in this process: tensors in the order of `inputs` to a tensor, or to several in
        a tuple or a mapping.
    example
        Arrays in the order of `inputs`, [n, …] each with the batch first.
    builder
        ``"package.module:function"``, which the server imports and calls as
        ``builder(arguments, parameters, folder)``. It returns what `call` is here.
    arguments
        What JSON can hold.
    parameters
        Tensors by name; they travel as safetensors.
    inputs, outputs
        Empty: found from `example`, with the names ``input_0``, … and ``output`` or the keys of
        the mapping that the model returns. What is ragged names both.
    ragged
        A request is one thing of any size, such as a graph, and not a number of rows: its inputs
        need not have their first axis in common, and `merge` joins things, not rows.
    merge
        What joins the requests that wait and splits their answers: see `serving.merging`.
    files
        Further files by name, which `builder` finds in `folder`.
    run
        The run that the model comes from, if any: a name or a folder.

    Raises
    ------
    ServableError
        What is given does not fit together.
    """

    name: str
    call: Callable[..., Any]
    example: tuple[np.ndarray, ...]
    builder: str
    arguments: Mapping[str, Any]
    parameters: Mapping[str, Tensor]
    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    ragged: bool = False
    merge: str = "sml_kernel.serving.merging:rows"
    files: Mapping[str, bytes] = field(default_factory=dict)
    run: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ServableError(
                f"{self.name!r} cannot name a model: use letters, digits, '_', '.' and '-'"
            )
        for part in ("builder", "merge"):
            if getattr(self, part).count(":") != 1:
                raise ServableError(f"{part} is 'package.module:name', not {getattr(self, part)!r}")
        try:
            json.dumps(self.arguments)
        except TypeError as error:
            raise ServableError(f"arguments of {self.name!r} are not JSON: {error}") from None
        if self.ragged and not (self.inputs and self.outputs):
            raise ServableError(f"{self.name!r} is ragged: its inputs and outputs have to be named")
        inputs = self.inputs or _fields([f"input_{i}" for i in range(len(self.example))], self)
        object.__setattr__(self, "inputs", inputs)
        if not self.outputs:
            object.__setattr__(self, "outputs", _outputs(self))

    def direct(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The model called in this process, with arrays in and arrays out."""
        return tuple(output.numpy() for output in named(_call(self, arrays)).values())

    def content(self) -> bytes:
        """The safetensors file: the parameters, and in its metadata what makes the model."""
        from safetensors.torch import save

        made_by = {
            "builder": self.builder,
            "arguments": dict(self.arguments),
            "merge": self.merge,
            "files": {name: hashlib.sha256(file).hexdigest() for name, file in self.files.items()},
        }
        tensors = {name: value.detach().cpu().clone() for name, value in self.parameters.items()}
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        return save(tensors, metadata={"servable": json.dumps(made_by, sort_keys=True)})

    def hash(self) -> str:
        """SHA-256 of `content`: what the model is, its settings included.

        ``sha256sum parameters.safetensors`` in the repository gives the same.
        """
        return hashlib.sha256(self.content()).hexdigest()


def named(returned: Any) -> dict[str, Tensor]:
    """The outputs of a model by name, whatever it returned them in."""
    from torch import Tensor

    if isinstance(returned, Tensor):
        returned = {"output": returned}
    elif isinstance(returned, tuple | list):
        names = getattr(returned, "_fields", [f"output_{i}" for i in range(len(returned))])
        returned = dict(zip(names, returned, strict=True))
    if not isinstance(returned, Mapping):
        raise ServableError(f"the model returned a {type(returned).__name__}, not tensors")
    for name, value in returned.items():
        if not isinstance(value, Tensor):
            raise ServableError(f"output {name!r} is a {type(value).__name__}, not a tensor")
    return {str(name): value.detach().cpu() for name, value in returned.items()}


def array(name: str, value: Any) -> np.ndarray:
    """A tensor or an array as a contiguous array with its batch first."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        found = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no array: {error}") from None
    if found.ndim == 0:
        raise InputError(f"{name} is a single number: its first axis has to be the batch")
    return found


def at_least(rows: int, values: np.ndarray) -> np.ndarray:
    """Repeat an example along the batch until it has so many rows."""
    if len(values) == 0:
        raise ServableError("an example needs a row at least")
    return np.concatenate([values] * -(-rows // len(values)))


def tensor(values: np.ndarray) -> Tensor:
    """An array as a tensor with a memory of its own."""
    import torch

    return torch.from_numpy(np.array(values))  # a copy: torch wants to be able to write


def _call(model: Servable, arrays: Sequence[np.ndarray]) -> Any:
    import torch

    with torch.no_grad():
        return model.call(*map(tensor, arrays))


def _fields(names: Sequence[str], model: Servable) -> tuple[Field, ...]:
    pairs = zip(names, model.example, strict=True)
    return tuple(Field(name, str(value.dtype), value.shape[1:]) for name, value in pairs)


def _outputs(model: Servable) -> tuple[Field, ...]:
    rows = len(model.example[0])
    found = []
    for name, value in named(_call(model, model.example)).items():
        if value.ndim == 0 or len(value) != rows:
            raise ServableError(
                f"{model.name!r} was given {rows} rows and returned {name} of shape "
                f"{tuple(value.shape)}: its first axis has to be the batch"
            )
        kind = str(value.dtype).removeprefix("torch.")
        found.append(Field(name, kind, tuple(value.shape[1:])))
    return tuple(found)
