"""What a notebook's ``parameters`` cell declares, and whether given values fit it.

Papermill only warns of a name that the notebook does not have, and then runs it at its full size.
Here the cell is read as Python, and names and types are checked before anything runs.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CHECKED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list,),
    "tuple": (list, tuple),
    "dict": (dict,),
    "None": (type(None),),
}
_WORDS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}


class ParameterError(ValueError):
    """A name that the notebook does not have, or a value of another type than it says."""


@dataclass(frozen=True)
class Parameter:
    """A name that the ``parameters`` cell assigns.

    Attributes
    ----------
    annotation
        Its type as written there, ``""``: none.
    default
        As written there.
    """

    name: str
    annotation: str
    default: str

    def __str__(self) -> str:
        annotation = f": {self.annotation}" if self.annotation else ""
        return f"{self.name}{annotation} = {self.default}"


def declared(cells: Sequence[Mapping[str, Any]]) -> dict[str, Parameter]:
    """Parameters of a notebook's cells by name, none if no cell has the tag ``parameters``.

    Raises
    ------
    ParameterError
        That cell is not Python.
    """
    for cell in cells:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            try:
                body = ast.parse(cell["source"]).body
            except SyntaxError as error:
                raise ParameterError(
                    f"line {error.lineno} of the parameters cell: {error.msg}"
                ) from None
            found = [parameter for statement in body for parameter in _assigned(statement)]
            return {parameter.name: parameter for parameter in found}
    return {}


def check(known: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, paths as text.

    Raises
    ------
    ParameterError
        An unknown name: the known ones are listed. A value that does not fit its annotation (only
        int, float, str, bool, list, tuple, dict, None, and unions of them, are understood), or
        that cannot be written into a notebook.
    """
    unknown = [name for name in values if name not in known]
    if unknown:
        lines = "".join(f"\n  {each}" for each in known.values()) or " none"
        raise ParameterError(
            f"the notebook has no parameter {', '.join(unknown)}; it has (with defaults):{lines}"
        )
    plain = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in values.items()
    }
    for name, value in plain.items():
        _check_type(known[name], value)
    return plain


def parse(known: Mapping[str, Parameter], pairs: Sequence[str]) -> dict[str, Any]:
    """Values from ``name=value`` texts: JSON, or True, False, None as Python has them, or text.

    A parameter whose annotation has ``str`` takes the text as it stands, unless that is a value of
    another type which the annotation has too: ``None`` for ``str | None``.
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ParameterError(f"write a parameter as name=value, not {pair!r}")
        accepted = _accepted(known[name].annotation) if name in known else None
        value = _value(text)
        if accepted and str in accepted and (type(value) not in accepted or type(value) is str):
            value = text
        values[name] = value
    return values


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assigned(statement: ast.stmt) -> list[Parameter]:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        default = ast.unparse(statement.value) if statement.value else "..."
        return [Parameter(statement.target.id, ast.unparse(statement.annotation), default)]
    if isinstance(statement, ast.Assign):
        default = ast.unparse(statement.value)
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        return [Parameter(name, "", default) for name in names]
    return []


def _check_type(parameter: Parameter, value: Any) -> None:
    try:
        json.dumps(value)
    except TypeError:
        raise ParameterError(
            f"{parameter.name}: a {type(value).__name__} cannot be written into a notebook; "
            "give numbers, text, booleans, None, lists or dicts"
        ) from None
    accepted = _accepted(parameter.annotation)
    if accepted is None:
        return
    number_like = isinstance(value, bool) and bool not in accepted  # True is an int to Python
    if number_like or not isinstance(value, tuple(accepted)):
        raise ParameterError(
            f"{parameter.name} is {parameter.annotation} in the notebook, not "
            f"{type(value).__name__} ({value!r})"
        )


def _accepted(annotation: str) -> set[type] | None:
    """The types that an annotation allows; None: it is not understood, so anything goes."""
    plain = annotation.removeprefix("typing.")
    if plain.startswith("Optional[") and plain.endswith("]"):
        plain = plain.removeprefix("Optional[").removesuffix("]") + " | None"
    names = [part.strip().split("[")[0] for part in plain.split("|")]
    if not all(name in _CHECKED for name in names):
        return None
    return {kind for name in names for kind in _CHECKED[name]}
