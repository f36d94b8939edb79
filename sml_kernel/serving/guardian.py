"""A small process between the notebook and its server, which leaves nothing behind.

A killed notebook ends nothing by itself, and a killed server leaves its model processes and their
shared memory. So the server is a child of this process, which waits for the first of three: a
word on stdin, the end of the notebook's process (a pidfd: no race with a reused id), the end of the
server. Then it ends the server's process group and removes its shared memory, which is known by the
name that the server was told to give it, and the file by which others find the server. If this
process itself is killed, the kernel kills the server, and the notebook does the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

#: Seconds that a server is given to answer what it has begun, before it is killed.
GRACE_S = 3.0
_SHARED_MEMORY = Path("/dev/shm")
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(notebook: int, prefix: str, discovery: str, command: list[str]) -> int:
    """Start `command`, print its process id, and wait: see the module."""
    libc = ctypes.CDLL(None)  # before the fork: nothing is loaded in the child
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL),
    )
    print(server.pid, flush=True)
    exited = os.pidfd_open(server.pid)
    inputs = select.poll()
    for descriptor in (0, notebook, exited):
        inputs.register(descriptor, select.POLLIN)
    inputs.poll()  # also a pipe that closes without a word
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_S)
    sweep(server.pid, prefix, Path(discovery))
    return server.wait()


def sweep(group: int, prefix: str, discovery: Path) -> None:
    """Kill what is left of a server's process group, and remove its files."""
    deadline = time.monotonic() + 5.0
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:  # those in an uninterruptible call go a little later
            os.killpg(group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)
            time.sleep(0.02)
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
    discovery.unlink(missing_ok=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
