"""A Triton process of this machine: started, waited for, its models loaded, and ended."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, final

from sml_kernel.serving import discovery, guardian
from sml_kernel.serving.discovery import DISCOVERY, Discovery, Place
from sml_kernel.serving.errors import StartError
from sml_kernel.serving.install import Installed

ADDRESS = "127.0.0.1"
_TAIL_LINES = 25
_TRIES = 3  # somebody else may take a free port before the server does


@final
class LocalServer:
    """A Triton on free ports of loopback, empty until `load`.

    Parameters
    ----------
    installed
        The Triton that runs.
    folder
        Its run folder: ``repository``, ``logs`` and the file by which others find it.
    threads
        Of each model's process; None is what the environment says.
    timeout_s
        Longest to wait until it answers.

    Raises
    ------
    StartError
        It ended, or did not answer in time; with the end of its log.
    """

    def __init__(
        self, installed: Installed, folder: Path, *, threads: int | None, timeout_s: float
    ) -> None:
        self.folder = folder
        self.log = folder / "logs" / "server.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        (folder / "repository").mkdir(exist_ok=True)
        self._deadline = time.monotonic() + timeout_s
        self._prefix = f"sml-serving-{secrets.token_hex(6)}-"
        environment = {**os.environ, **installed.environment(folder / "python")}
        if threads is not None:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        for attempt in range(_TRIES):
            self.place = _free_place(self._prefix.rstrip("-"))
            self._start(installed, environment)
            try:
                self._wait()
                break
            except StartError:
                self.close()
                taken = "already in use" in self.tail() or "Unavailable - Socket" in self.tail()
                if not taken or attempt == _TRIES - 1:
                    raise
            except BaseException:  # Ctrl-C while waiting
                self.close()
                raise
        discovery.write(folder, self.discovery())

    def _start(self, installed: Installed, environment: dict[str, str]) -> None:
        command = _command(installed, self.folder / "repository", self.place, self._prefix)
        notebook = os.pidfd_open(os.getpid())
        guard = [sys.executable, "-m", guardian.__name__, str(notebook), self._prefix]
        path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
        try:
            with self.log.open("a") as log:
                self.process = subprocess.Popen(
                    [*guard, str(self.folder / DISCOVERY), *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    pass_fds=[notebook],
                    start_new_session=True,  # a Ctrl-C in the terminal is for the notebook
                    env={**environment, "PYTHONPATH": path},
                )
        finally:
            os.close(notebook)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            raise StartError(f"the server's guardian did not start:\n{self.tail()}")
        self.pid = int(said)

    def _wait(self) -> None:
        while not self._answers():
            if self.process.poll() is not None:
                raise StartError(f"Triton ended while it started:\n{self.tail()}")
            if time.monotonic() > self._deadline:
                raise StartError(f"Triton did not answer in time:\n{self.tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            status, said = self._ask("GET", "/v2", timeout_s=1.0)
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and said.get("name") == self.place.server_id

    def load(self, name: str) -> float:
        """Load a model of the repository, and return the seconds that it took.

        Raises
        ------
        StartError
            It does not load, or not in time: Triton's reason and the end of the log.
        """
        began = time.monotonic()
        left_s = max(self._deadline - began, 0.1)
        try:
            status, said = self._ask("POST", f"/v2/repository/models/{name}/load", left_s)
        except TimeoutError:
            raise StartError(f"{name!r} did not load in time:\n{self.tail()}") from None
        except (OSError, http.client.HTTPException) as error:
            raise StartError(f"Triton ended while it loaded {name!r}:\n{self.tail()}") from error
        if status != 200:
            reason = said.get("error", f"status {status}")
            raise StartError(f"{name!r} does not load: {reason}\nThe server's log:\n{self.tail()}")
        return time.monotonic() - began

    def _ask(self, method: str, path: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self.place.http, timeout=timeout_s)
        try:
            connection.request(method, path, body="{}" if method == "POST" else None)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except json.JSONDecodeError as error:  # whoever answers is no Triton
            raise http.client.HTTPException(f"{self.place.http} answers no JSON") from error
        finally:
            connection.close()

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def discovery(self) -> Discovery:
        """What a client needs to know of it."""
        return Discovery((self.place,), pid=self.pid)

    def alive(self) -> bool:
        """Whether its guardian runs, and so the server."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the server with all that belongs to it; again is harmless."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            if self.process.returncode < 0:  # the guardian was killed and could not
                guardian.sweep(self.pid, self._prefix, self.folder / DISCOVERY)


def _command(installed: Installed, repository: Path, place: Place, prefix: str) -> list[str]:
    options = {
        "model-repository": str(repository),
        "backend-directory": str(installed.backends),
        "backend-config": f"python,shm-region-prefix-name={prefix}",
        "id": place.server_id,
        "model-control-mode": "explicit",  # a bad model is an answer then, and ends no server
        "exit-on-error": "false",
        "strict-readiness": "false",
        "exit-timeout-secs": "2",
    }
    for kind in ("http", "grpc", "metrics"):
        host, _, port = getattr(place, kind).partition(":")
        options |= {f"{kind}-address": host, f"{kind}-port": port}
    return [str(installed.executable), *(f"--{name}={value}" for name, value in options.items())]


def _free_place(server_id: str) -> Place:
    """Three ports that are free now."""
    sockets = [socket.create_server((ADDRESS, 0)) for _ in range(3)]
    grpc, web, metrics = (f"{ADDRESS}:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return Place(grpc, web, metrics, server_id)
