"""A real Triton Inference Server on this machine, without a container.

The server is the one inside the wheel of nvidia-pytriton, which is fetched once into a cache
folder. The environment itself is not changed; `Installed.environment` joins the two for the
server's processes alone. The wheel's Python backend corrupts NumPy arrays under NumPy 2, so
`serving.executor` never lets it touch one.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from sml_kernel.serving.errors import InstallError

TRITON = "2.51.0"
_GLIBC = (2, 35)
_PYTHONS = ("3.11", "3.12")
#: What is fetched, with its SHA-256.
_REQUIREMENT = "nvidia-pytriton==0.7.0"
_HASH = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"


@dataclass(frozen=True)
class Installed:
    """A Triton in a folder, made by `install_triton`."""

    folder: Path

    @property
    def executable(self) -> Path:
        """The server's program."""
        return self.folder / "wheel" / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder of its backends, of which there is the Python one."""
        return self.folder / "backends"

    def environment(self, folder: Path) -> dict[str, str]:
        """Make the Python of one server in `folder`, and what its environment is changed by.

        The server's processes take the first ``python3`` of the PATH and ignore PYTHONPATH. So
        that is a virtual environment of a few files, which sees all that this process sees, at the
        places where it does.
        """
        site = folder / "lib" / f"python{_python()}" / "site-packages"
        site.mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(sys.executable)
        home = Path(sys.executable).resolve().parent
        (folder / "pyvenv.cfg").write_text(
            f"home = {home}\nversion = {platform.python_version()}\n"
        )
        seen = [str(Path(each).resolve()) for each in sys.path if Path(each or ".").is_dir()]
        own = str(Path(__file__).resolve().parents[2])
        add = "".join(f"import site; site.addsitedir({each!r})\n" for each in (*seen, own))
        (site / "places.pth").write_text(add)
        libraries = [sysconfig.get_config_var("LIBDIR"), self.folder / "wheel/nvidia_pytriton.libs"]
        path = [folder / "bin", os.environ.get("PATH", "")]
        return {
            "PATH": os.pathsep.join(map(str, path)),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        }


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/sml-kernel``, by default ``~/.cache/sml-kernel``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sml-kernel"


def install_triton(cache: str | os.PathLike[str] | None = None) -> Installed:
    """Triton in the cache folder, fetched on first use (55 MB); later it is just found.

    Parameters
    ----------
    cache
        Where it lies, one folder a version; None is `default_cache`.

    Raises
    ------
    InstallError
        The platform has no such Triton, or it cannot be fetched; the error says what to do.
    """
    _check_platform(sys.platform, platform.machine(), platform.libc_ver(), _python())
    parent = Path(cache) if cache is not None else default_cache()
    folder = parent / f"triton-{TRITON}-py{_python()}"
    if folder.is_dir():
        return Installed(folder)
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed: one fetches, the others wait
        if not folder.is_dir():
            partial = parent / f".{folder.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
            _fill(partial)
            partial.replace(folder)
    return Installed(folder)


def _check_platform(system: str, machine: str, libc: tuple[str, str], python: str) -> None:
    instead = "Serve on a machine that has, and `serving.connect(url)` from here."
    name, version = libc
    if system != "linux" or machine != "x86_64":
        raise InstallError(f"Triton runs on Linux on x86_64, not {system} on {machine}. {instead}")
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC:
        need = ".".join(map(str, _GLIBC))
        raise InstallError(f"Triton needs glibc {need}, this is {name} {version}. {instead}")
    if python not in _PYTHONS:
        raise InstallError(
            f"Triton's Python backend is set up for Python {' and '.join(_PYTHONS)}, not {python}: "
            "use an environment of one of these"
        )


def _fill(folder: Path) -> None:
    _fetch(folder)
    server = folder / "wheel" / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).hardlink_to(server / "backends" / "python" / name)
    stub = backend / "triton_python_backend_stub"
    stub.hardlink_to(server / "python_backend_stubs" / _python() / stub.name)
    stub.chmod(0o755)
    (server / "bin" / "tritonserver").chmod(0o755)


def _fetch(folder: Path) -> None:
    """Have pip fetch the wheel, refuse it if its hash is another, and unpack it."""
    if importlib.util.find_spec("pip") is None:
        raise InstallError(
            f"Triton is fetched by pip, which {sys.executable} lacks: "
            f"run `{sys.executable} -m ensurepip`"
        )
    folder.mkdir(exist_ok=True)
    wanted = folder / "wheel.txt"
    wanted.write_text(f"{_REQUIREMENT} --hash=sha256:{_HASH}")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--target", str(folder / "wheel"), "--requirement", str(wanted)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise InstallError(
            f"Triton cannot be fetched: {_REQUIREMENT} did not come. Where the network is closed, "
            f"copy {folder.parent} from a machine that has it. pip says:\n{ran.stderr.strip()}"
        )


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
