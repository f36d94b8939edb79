"""Sites: what a facility offers and allows, one TOML file each in this folder.

No other package names a facility. A new one is a new file here, or a file of the user's own that
`site` is given by its path; the keys are the attributes of `Site`, `NodeType`, `Qos` and `Detect`.
"""

from __future__ import annotations

import os
from pathlib import Path

from sml_kernel.sites.values import Detect, NodeType, Qos, Site, SiteError, read

__all__ = ["Detect", "NodeType", "Qos", "Site", "SiteError", "names", "site"]

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The sites that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def site(name: str | os.PathLike[str] | Site | None = None) -> Site:
    """A site by name, by the path of a TOML file, or the one this is.

    Parameters
    ----------
    name
        A name of `names`; a path (something with a ``/`` or ending in ``.toml``); a `Site`, which
        is given back; or None: the site whose ``[detect]`` table holds here, else the one whose
        workers are processes of this machine.

    Raises
    ------
    SiteError
        No such name or file, a file that cannot be used, or two sites that both hold here.
    """
    if isinstance(name, Site):
        return name
    if name is None:
        return _detected()
    text = os.fspath(name)
    if "/" in text or text.endswith(".toml"):
        return read(text)
    if text not in names():
        raise SiteError(
            f"unknown site {text!r}; known: {', '.join(names())}, or the path of a TOML file"
        )
    return read(_FOLDER / f"{text}.toml")


def _detected() -> Site:
    sites = [site(name) for name in names()]
    here = [one for one in sites if one.detect is not None and _holds(one.detect)]
    if len(here) > 1:
        raise SiteError(f"this looks like {' and '.join(one.name for one in here)}: name one")
    return here[0] if here else next(one for one in sites if one.scheduler == "local")


def _holds(detect: Detect) -> bool:
    if not detect.environment and not detect.cluster_name:
        return False
    variables = all(os.environ.get(name) == value for name, value in detect.environment.items())
    return variables and detect.cluster_name in ("", _cluster_name())


def _cluster_name() -> str | None:
    """``ClusterName`` of this machine's slurm.conf, read without asking Slurm."""
    path = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf"))
    try:
        lines = path.read_text().splitlines()
    except OSError:  # no Slurm here, or none this user may look into
        return None
    pairs = (line.partition("=") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == "ClusterName"), None)
