"""One request to one server, and a name for what goes wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sml_kernel.serving.errors import ModelError, ServerGoneError, UnknownModelError

if TYPE_CHECKING:
    from sml_kernel.serving.transports import Transport


def ask(transport: Transport, name: str, do: Callable[[], Any], if_gone: str) -> Any:
    """Do it.

    Parameters
    ----------
    transport
        What `do` uses.
    name
        The model that is asked, or empty.
    do
        Raises as tritonclient does.
    if_gone
        What to do when nothing answers, for the error.

    Raises
    ------
    ServerGoneError
        Nothing answers, or the connection broke: another server may answer.
    UnknownModelError, ModelError, TimeoutError
        As `Service.infer`.
    """
    from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
    from tritonclient.utils import InferenceServerException

    try:
        return do()
    except InferenceServerException as error:
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            raise TimeoutError(f"{transport.url} did not answer in time") from error
        broke = error.status() == "StatusCode.UNAVAILABLE"
        raise _named(transport, name, error.message(), broke, if_gone) from error
    except TimeoutError as error:
        raise TimeoutError(f"{transport.url} did not answer in time") from error
    except (OSError, HTTPConnectionClosed, HTTPParseError) as error:
        raise _named(transport, name, str(error), True, if_gone) from error


def _named(transport: Transport, name: str, told: str, broke: bool, if_gone: str) -> Exception:
    if not transport.live():
        return ServerGoneError(f"nothing answers at {transport.url}: {if_gone}")
    known = ready(transport)
    if name and name not in known:
        listed = ", ".join(known) or "none"
        return UnknownModelError(f"no model {name!r} is ready at {transport.url}; ready: {listed}")
    if broke:  # whoever answers there now may be another
        return ServerGoneError(f"the connection to {transport.url} broke: {told}; ask again")
    return ModelError(f"{name!r} failed: {told}")


def ready(transport: Transport) -> list[str]:
    """The models that are ready. Raises as tritonclient does.

    From the statistics: Triton's index leaves out what came over the wire.
    """
    return sorted({each["name"] for each in transport.statistics("")})
