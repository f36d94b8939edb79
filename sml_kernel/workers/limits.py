"""What a site allows, in plain words and before anything is sent."""

from __future__ import annotations

import numbers
import re
from typing import TYPE_CHECKING, overload

from sml_kernel.sites import walltime as times

if TYPE_CHECKING:
    from sml_kernel.workers.request import Request, Shape

# What goes into a line of a job's script must not be able to end it
_WORD = re.compile(r"[\w.-]+", re.ASCII)


class RequestError(ValueError):
    """A request that the site does not allow; nothing was sent. The message says the limit."""


@overload
def whole(name: str, value: None, least: int) -> None: ...
@overload
def whole(name: str, value: int, least: int) -> int: ...
@overload
def whole(name: str, value: int | None, least: int) -> int | None: ...
def whole(name: str, value: int | None, least: int) -> int | None:
    """The value as an int, None for None.

    Raises
    ------
    RequestError
        Not a whole number (1.0, "4" and True are none), or less than `least`.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise RequestError(f"{name}={value!r}: give a whole number, such as {max(least, 1)}")
    if value < least:
        raise RequestError(f"{name}={value}: ask for {least} or more")
    return int(value)


def word(name: str, value: str | None) -> str | None:
    """The name of an account or a QOS, None for an empty one.

    Raises
    ------
    RequestError
        It has other characters than letters, digits, ``_``, ``.`` and ``-``.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise RequestError(f"{name}={value!r} is no name: letters, digits, _ . and - make one")
    return value


def check(asked: Request, shapes: list[Shape]) -> None:
    """Refuse jobs beyond what the site allows.

    Raises
    ------
    RequestError
        Names the limit and what was asked.
    """
    terms, qos, site = asked.terms, asked.qos, asked.site
    if terms.walltime_s is not None and asked.walltime_s > terms.walltime_s:
        _refuse(qos, times.text(terms.walltime_s), times.text(asked.walltime_s))
    shape = max(shapes, key=lambda shape: shape.workers)
    if asked.node.count is not None and shape.nodes > asked.node.count:
        _refuse(site.name, counted(asked.node.count, "node") + " of this type", shape.nodes)
    if site.scheduler == "local":
        if asked.gpus and shape.workers > asked.capacity:
            _refuse(site.name, counted(asked.capacity, "GPU"), shape.workers)
        return
    if shape.per_node > asked.capacity:
        _refuse(site.name, f"{asked.capacity} {asked.what} a node", shape.per_node)
    if terms.nodes is not None and shape.nodes > terms.nodes:
        _refuse(qos, counted(terms.nodes, "node"), shape.nodes)
    if asked.gpus and terms.gpus is not None and shape.workers > terms.gpus:
        _refuse(qos, f"{terms.gpus} GPUs a job", shape.workers)
    most = asked.capacity if terms.node_share is None else int(terms.node_share * asked.capacity)
    if shape.per_node > most:
        _refuse(qos, f"{most} {asked.what} a job", shape.per_node)
    if terms.submitted_jobs is not None and len(shapes) > terms.submitted_jobs:
        _refuse(qos, f"{counted(terms.submitted_jobs, 'job')} at a time", len(shapes))
    _check_account(asked)


def _check_account(asked: Request) -> None:
    """An account pays either for nodes with GPUs or for those without."""
    suffix, account = asked.site.gpu_account_suffix, asked.account
    if not suffix or not account or account.endswith(suffix) == bool(asked.node.gpus):
        return
    if asked.node.gpus:
        raise RequestError(
            f"accounts that pay for GPUs on {asked.site.name} end in {suffix}, you gave "
            f"{account}: try {account}{suffix}"
        )
    raise RequestError(
        f"accounts that end in {suffix} pay for nodes with GPUs on {asked.site.name}, you asked "
        f"for {asked.node_type} nodes with {account}: try {account.removesuffix(suffix)}"
    )


def counted(number: int, what: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _refuse(who: str, limit: str, asked: object) -> None:
    raise RequestError(f"{who} allows {limit}, you asked for {asked}")
