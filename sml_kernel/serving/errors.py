"""What can go wrong with a service, each with a name that may be caught."""

from __future__ import annotations


class ServableError(ValueError):
    """A thing that cannot be served as it is."""


class InputError(ValueError):
    """A request that does not fit the model: a name, a shape or a type."""


class UnknownModelError(LookupError):
    """No such model on the server."""


class ModelError(RuntimeError):
    """The model raised while it answered; the service goes on."""


class ServerGoneError(ConnectionError):
    """Nothing answers where the server was."""


class StartError(RuntimeError):
    """A server, or one of its models, that did not come up."""


class InstallError(RuntimeError):
    """Triton cannot be installed or run on this machine."""


class MismatchError(RuntimeError):
    """A served model answers otherwise than the same model called directly."""
