"""What is served, as a value: what it takes and gives, and how a server makes it again.

A model, a fit or a pipeline becomes one by itself: its ``servable(name)`` returns the arguments of
`Servable` but the name, as a mapping, so that it need not import this package. A
`torch.nn.Module` becomes one from an example of its inputs.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.serving.errors import InputError, ServableError

if TYPE_CHECKING:
    from torch import Tensor, nn

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
        Of one row, without the first axis, which is the batch; -1 is any length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in TYPES:
            known = ", ".join(TYPES)
            raise ServableError(f"{self.name} is of type {self.dtype}; served are {known}")


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
        the mapping that the model returns.
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


def as_servable(name: str, model: Any, example: Any = None) -> Servable:
    """Make what is served of a model.

    Parameters
    ----------
    name
        By which requests will name it.
    model
        A `Servable`, an object with ``servable(name)``, or a `torch.nn.Module`, which is copied:
        it may be trained on.
    example
        Input of a plain module: a tensor or an array, several in a tuple, [n, …] each with the
        batch first. An example of one row will do.

    Raises
    ------
    ServableError
        The model cannot be served; the error says what it lacks.
    """
    if isinstance(model, Servable):
        return replace(model, name=name)
    if callable(getattr(model, "servable", None)):
        made = model.servable(name)
        return replace(made, name=name) if isinstance(made, Servable) else _given(name, made)
    try:
        from torch import nn
    except ModuleNotFoundError:
        raise ServableError("torch is not installed: modules cannot be served here") from None
    if isinstance(model, nn.Module):
        return _of_module(name, model, example)
    raise ServableError(
        f"{name!r} is a {type(model).__name__}: served are torch modules, and objects that have "
        "`servable(name)`"
    )


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


def _given(name: str, made: Mapping[str, Any]) -> Servable:
    known = [each.name for each in fields(Servable) if each.name != "name"]
    unknown = sorted(set(made) - set(known))
    missing = sorted({"call", "example", "builder", "arguments", "parameters"} - set(made))
    if unknown or missing:
        raise ServableError(
            f"servable({name!r}) gave unknown {unknown} and lacks {missing}; "
            f"known: {', '.join(known)}"
        )
    values = dict(made)
    for part in ("inputs", "outputs"):
        values[part] = tuple(
            each if isinstance(each, Field) else Field(*each) for each in made.get(part, ())
        )
    return Servable(name, **values)


def _of_module(name: str, module: nn.Module, example: Any) -> Servable:
    from sml_kernel.serving import modules

    if example is None:
        raise ServableError(
            f"{name!r} is a plain module: say what it takes, "
            f"examples={{{name!r}: torch.zeros(1, …)}}"
        )
    copied = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    given = example if isinstance(example, tuple) else (example,)
    names = _argument_names(copied, len(given))
    arrays = tuple(array(each, value) for each, value in zip(names, given, strict=True))
    made: dict[str, Any] = {"call": copied, "example": arrays}
    if modules.rebuildable(module):
        kind = type(module)
        made["builder"] = "sml_kernel.serving.modules:rebuilt"
        made["arguments"] = {
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "settings": module.settings,
        }
    else:
        program = modules.export(copied, [_tensor(at_least(2, each)) for each in arrays])
        made |= {"builder": "sml_kernel.serving.modules:exported", "arguments": {}}
        made["files"] = {modules.PROGRAM: program}
    shapes = zip(names, arrays, strict=True)
    inputs = tuple(Field(each, str(value.dtype), value.shape[1:]) for each, value in shapes)
    return Servable(name, parameters=copied.state_dict(), inputs=inputs, **made)


def at_least(rows: int, values: np.ndarray) -> np.ndarray:
    """Repeat an example along the batch until it has so many rows."""
    if len(values) == 0:
        raise ServableError("an example needs a row at least")
    return np.concatenate([values] * -(-rows // len(values)))


def _tensor(values: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(np.array(values))  # a copy: torch wants to be able to write


def _call(model: Servable, arrays: Sequence[np.ndarray]) -> Any:
    import torch

    with torch.no_grad():
        return model.call(*map(_tensor, arrays))


def _argument_names(module: nn.Module, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in taken if each.kind in kinds]
    if len(names) < count:
        names = [f"input_{i}" for i in range(count)]
    return names[:count]


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
