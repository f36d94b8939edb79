"""The same load by Triton's own `perf_analyzer`, a program in C++, to judge our client by.

It comes in the wheel of tritonclient 2.51.0 and needs two libraries that lie beside our Triton. It
is fetched only by `install_perf_analyzer`. What a model takes of any size is given to it as JSON,
each input with its shape (its manual, "Input Data").
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sml_kernel.serving.errors import InstallError
from sml_kernel.serving.install import default_cache, install_triton

if TYPE_CHECKING:
    from sml_kernel.serving.answers import Served
    from sml_kernel.serving.client import Service

_VERSION = "2.51.0"
#: What is fetched, with its SHA-256.
_REQUIREMENT = f"tritonclient=={_VERSION}"
_HASH = "c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52"
#: The libraries by the names that it asks for, and what they are called in the wheel of Triton.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_WINDOWS = 3  # it judges whether a measurement is stable by so many
_ANY_STABILITY = "999"  # percent: a busy machine is no reason to go on without end


@dataclass(frozen=True)
class Analyzer:
    """A perf_analyzer in a folder, made by `install_perf_analyzer`."""

    folder: Path

    @property
    def executable(self) -> Path:
        """The program."""
        return self.folder / "bin" / "perf_analyzer"

    def environment(self) -> dict[str, str]:
        """This process's environment, with the libraries that the program needs."""
        return {**os.environ, "LD_LIBRARY_PATH": str(self.folder / "lib")}


def found_perf_analyzer(cache: str | os.PathLike[str] | None = None) -> Analyzer:
    """The one in the cache folder.

    Raises
    ------
    InstallError
        There is none.
    """
    folder = _folder(cache)
    if not folder.is_dir():
        raise InstallError(
            f"there is no perf_analyzer in {folder.parent}: "
            "serving.install_perf_analyzer() fetches it"
        )
    return Analyzer(folder)


def install_perf_analyzer(cache: str | os.PathLike[str] | None = None) -> Analyzer:
    """perf_analyzer in the cache folder, fetched on first use (14 MB); later it is just found.

    Parameters
    ----------
    cache
        Where it lies; None is `default_cache`. Triton is installed there too, for its libraries.

    Raises
    ------
    InstallError
        There is no Triton for this platform, or the wheel cannot be fetched.
    """
    folder = _folder(cache)
    if folder.is_dir():
        return Analyzer(folder)
    libraries = install_triton(cache).folder / "wheel" / "nvidia_pytriton.libs"
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed: one fetches, the others wait
        if not folder.is_dir():
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
            _fill(partial, libraries)
            partial.replace(folder)
    return Analyzer(folder)


def _folder(cache: str | os.PathLike[str] | None) -> Path:
    return (Path(cache) if cache is not None else default_cache()) / f"perf-analyzer-{_VERSION}"


def _fill(folder: Path, libraries: Path) -> None:
    (folder / "lib").mkdir(parents=True)
    _fetch(folder)
    (folder / "bin").mkdir()
    (folder / "wheel" / "bin" / "perf_analyzer").replace(folder / "bin" / "perf_analyzer")
    shutil.rmtree(folder / "wheel")
    (folder / "bin" / "perf_analyzer").chmod(0o755)
    for name, pattern in _LIBRARIES.items():
        (source,) = libraries.glob(pattern)
        (folder / "lib" / name).hardlink_to(source)


def _fetch(folder: Path) -> None:
    """Have pip fetch the wheel, refuse it if its hash is another, and unpack it."""
    wanted = folder / "wheel.txt"
    wanted.write_text(f"{_REQUIREMENT} --hash=sha256:{_HASH}")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--target", str(folder / "wheel"), "--requirement", str(wanted)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise InstallError(
            f"perf_analyzer cannot be fetched: {_REQUIREMENT} did not come. Where the network is "
            f"closed, copy {folder.parent} from a machine that has it. pip says:\n"
            f"{ran.stderr.strip()}"
        )


def analyze(
    analyzer: Analyzer,
    service: Service,
    name: str,
    arrays: Sequence[Mapping[str, np.ndarray]],
    *,
    transport: str,
    concurrency: int,
    duration_s: float,
) -> dict[str, float]:
    """Measure a closed loop, for three windows of `duration_s`.

    Parameters
    ----------
    analyzer
        From `install_perf_analyzer`.
    arrays
        The inputs of each request by name, as `Service.infer` takes them; all of as many rows,
        unless the model is ragged.
    transport
        ``"grpc"`` or ``"http"``.

    Returns
    -------
    dict
        ``throughput_s`` (answers a second), ``p50_us``, ``p90_us``, ``p99_us``, ``mean_us``, and
        the parts ``client_us``, ``network_us``, ``queue_us`` and ``compute_us`` as it tells them.

    Raises
    ------
    ValueError
        Requests that it cannot send: of different numbers of rows, or with nan or inf; or a
        service of several servers.
    RuntimeError
        It failed, for instance as the model refused a request; its last words are in the error.
    """
    if len(service.endpoints) > 1:
        raise ValueError("perf_analyzer asks one server: connect to one of them alone")
    requests = [_rows(service.describe(name), each) for each in arrays]
    sizes = {len(rows) for rows in requests}
    if len(sizes) > 1:
        raise ValueError(f"perf_analyzer sends requests of one size, not of {sorted(sizes)} rows")
    with tempfile.TemporaryDirectory() as temporary:
        given, report = Path(temporary) / "inputs.json", Path(temporary) / "report.csv"
        data = [row for rows in requests for row in rows]
        given.write_text(json.dumps({"data": data}, allow_nan=False))
        rows = sizes.pop()
        command = [analyzer.executable, "-m", name, "-b", rows, "-i", transport]
        command += ["-u", service.transports[transport].url, "--input-data", given]
        command += ["--concurrency-range", concurrency, "-p", round(1000 * duration_s)]
        command += ["-s", _ANY_STABILITY, "-r", _WINDOWS, "--verbose-csv", "-f", report]
        _run([str(each) for each in command], analyzer)
        return parse_report(report.read_text(), rows)


def _rows(served: Served, arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A request as rows, which it joins to a batch; of a ragged model one."""
    wired = {field.name: served.wire(field, arrays[field.name]) for field in served.inputs}
    rows = [dict(zip(wired, each, strict=True)) for each in zip(*wired.values(), strict=True)]
    return [{name: _tensor(values) for name, values in row.items()} for row in rows]


def _tensor(values: np.ndarray) -> dict[str, Any]:
    return {"content": values.ravel().tolist(), "shape": list(values.shape)}


def _run(command: list[str], analyzer: Analyzer) -> None:
    ran = subprocess.run(
        command, env=analyzer.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if ran.returncode:
        words = "\n".join(ran.stdout.decode(errors="replace").strip().splitlines()[-10:])
        raise RuntimeError(f"perf_analyzer ended with status {ran.returncode}:\n{words}")


def parse_report(text: str, rows: int) -> dict[str, float]:
    """What its CSV (``--verbose-csv``) says of one concurrency, as `analyze` returns it.

    Parameters
    ----------
    rows
        Of a request: what it counts are rows, and not answers.
    """
    (row,) = csv.DictReader(text.splitlines())
    compute = ("Input", "Infer", "Output")
    return {
        "throughput_s": float(row["Inferences/Second"]) / rows,
        **{f"p{share}_us": float(row[f"p{share} latency"]) for share in (50, 90, 99)},
        "mean_us": float(row["Avg latency"]),
        "client_us": float(row["Client Send"]) + float(row["Client Recv"]),
        "network_us": float(row["Network+Server Send/Recv"]),
        "queue_us": float(row["Server Queue"]),
        "compute_us": sum(float(row[f"Server Compute {each}"]) for each in compute),
    }
