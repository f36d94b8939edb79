"""Several servers as one: each request goes to the one that has least to do.

A server that failed gets no more requests until it has been seen to have the model again; a thread
looks. If none is left, the next request tries all of them, so that nobody waits for that thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

from sml_kernel.serving import asking
from sml_kernel.serving.errors import ModelError, ServerGoneError, UnknownModelError

if TYPE_CHECKING:
    from sml_kernel.serving.transports import Transport

_LOOK_EVERY_S = 0.5


@final
class Endpoint:
    """One server.

    Attributes
    ----------
    transports
        By name.
    outstanding
        Requests that it has not answered yet, of this client.
    healthy
        Whether it is asked.
    """

    def __init__(self, transports: dict[str, Transport]) -> None:
        self.transports = transports
        self.outstanding = 0
        self.healthy = True

    @property
    def url(self) -> str:
        """The first of its addresses."""
        return next(iter(self.transports.values())).url


@final
class Balancer:
    """Which server is asked next.

    Attributes
    ----------
    counts
        By url, the requests that each answered; under ``"retried"`` how often another was asked
        instead.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = list(endpoints)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @contextlib.contextmanager
    def least_busy(self, avoid: Sequence[Endpoint]) -> Iterator[Endpoint]:
        """Have the request of the block counted as outstanding at the server that is given.

        Parameters
        ----------
        avoid
            Servers that this request has tried; one at least is not among them.
        """
        with self._lock:
            left = [each for each in self.endpoints if each not in avoid]
            healthy = [each for each in left if each.healthy] or left
            chosen = min(healthy, key=lambda each: each.outstanding)
            chosen.outstanding += 1
        try:
            yield chosen
        finally:
            with self._lock:
                chosen.outstanding -= 1

    def answered(self, endpoint: Endpoint) -> None:
        """Count an answer."""
        with self._lock:
            self.counts[endpoint.url] += 1

    def failed(self, endpoint: Endpoint, name: str) -> None:
        """Ask this one no more until it has the model again."""
        with self._lock:
            self.counts["retried"] += 1
            looked_for, endpoint.healthy = not endpoint.healthy, False
        if not looked_for:
            threading.Thread(target=self._look, args=(endpoint, name), daemon=True).start()

    def _look(self, endpoint: Endpoint, name: str) -> None:
        transport = next(iter(endpoint.transports.values()))
        while not self._closed.wait(_LOOK_EVERY_S):
            with contextlib.suppress(ServerGoneError, UnknownModelError, ModelError, TimeoutError):
                ready = asking.ask(transport, "", lambda: asking.ready(transport), "")
                if not name or name in ready:
                    endpoint.healthy = True
                    return

    def close(self) -> None:
        """Look no more; what is open is closed."""
        self._closed.set()
        for endpoint in self.endpoints:
            for transport in endpoint.transports.values():
                transport.close()
