"""How a model becomes a `Servable`.

A model, a fit or a pipeline does by itself: its ``servable(name)`` returns the arguments of
`Servable` but the name, as a mapping, so that it need not import this package. A
`torch.nn.Module` does from an example of its inputs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sml_kernel.serving.errors import ServableError
from sml_kernel.serving.servable import Field, Servable, array, at_least, tensor

if TYPE_CHECKING:
    from torch import nn


def as_servable(name: str, model: Any, example: Any = None) -> Servable:
    """Make what is served of a model.

    Parameters
    ----------
    name
        By which requests will name it.
    model
        A `Servable`, an object with ``servable(name)`` or what that gave, or a `torch.nn.Module`,
        which is copied: it may be trained on.
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
    if isinstance(model, Mapping):
        return _given(name, model)
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
        program = modules.export(copied, [tensor(at_least(2, each)) for each in arrays])
        made |= {"builder": "sml_kernel.serving.modules:exported", "arguments": {}}
        made["files"] = {modules.PROGRAM: program}
    shapes = zip(names, arrays, strict=True)
    inputs = tuple(Field(each, str(value.dtype), value.shape[1:]) for each, value in shapes)
    return Servable(name, parameters=copied.state_dict(), inputs=inputs, **made)


def _argument_names(module: nn.Module, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in taken if each.kind in kinds]
    if len(names) < count:
        names = [f"input_{i}" for i in range(count)]
    return names[:count]
