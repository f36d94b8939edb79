"""What a facility offers and allows, as frozen values read from TOML."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sml_kernel.sites import walltime


class SiteError(ValueError):
    """A site that is not known or a site file that cannot be used; the message says what is."""


@dataclass(frozen=True)
class NodeType:
    """One kind of node.

    Attributes
    ----------
    gpus
        GPUs a node; None: as many as are visible where this runs.
    cores
        Physical cores a node; None: those this process may use.
    threads_per_core
        What Slurm counts as a CPU is a hardware thread: it sees ``cores × threads_per_core``.
    memory_gib
        Memory a node that jobs can have, GiB; None: what this machine has.
    constraint
        Slurm's feature expression that selects these nodes (``--constraint``).
    count
        How many there are; None: not stated.
    """

    gpus: int | None = None
    cores: int | None = None
    threads_per_core: int = 1
    memory_gib: float | None = None
    constraint: str = ""
    count: int | None = None

    def __post_init__(self) -> None:
        _at_least(0, gpus=self.gpus)
        _at_least(1, cores=self.cores, threads_per_core=self.threads_per_core, count=self.count)
        _above_zero(memory_gib=self.memory_gib)


@dataclass(frozen=True)
class Qos:
    """A quality of service: what it allows and what it charges. None: no limit.

    Attributes
    ----------
    walltime
        The longest job, ``[D-]HH:MM:SS``.
    nodes, gpus
        The most nodes, and GPUs, of one job.
    node_share
        The largest share of a node's GPUs, or cores, that a job may hold there.
    submitted_jobs, running_jobs
        The most jobs of one user that are queued or running, and that run at the same time.
    whole_nodes
        Jobs have nodes to themselves and are charged for them. False: charged by the largest
        share of a node's GPUs or cores that they hold.
    charge_factor
        Node-hours charged for a node-hour used.
    preemptible, guaranteed
        Jobs may be ended for others, but not before ``guaranteed`` (``[D-]HH:MM:SS``).
    requeue
        The facility puts jobs that lost their nodes back into the queue. Jobs of workers opt out
        (``--no-requeue``): they are replaced, with the cause recorded, while their notebook lives.
    """

    walltime: str | None = None
    nodes: int | None = None
    gpus: int | None = None
    node_share: float | None = None
    submitted_jobs: int | None = None
    running_jobs: int | None = None
    whole_nodes: bool = False
    charge_factor: float = 1.0
    preemptible: bool = False
    guaranteed: str | None = None
    requeue: bool = False

    def __post_init__(self) -> None:
        _at_least(1, nodes=self.nodes, submitted_jobs=self.submitted_jobs)
        _at_least(1, running_jobs=self.running_jobs)
        _at_least(0, gpus=self.gpus, charge_factor=self.charge_factor)
        _above_zero(node_share=self.node_share)
        for text in (self.walltime, self.guaranteed):
            if text is not None:
                walltime.parse(text)

    @property
    def walltime_s(self) -> int | None:
        """The longest job in seconds, None without a limit."""
        return None if self.walltime is None else walltime.parse(self.walltime)


@dataclass(frozen=True)
class Detect:
    """How a site is recognised: every one of these that is stated must hold.

    Attributes
    ----------
    environment
        Environment variables and their values.
    cluster_name
        ``ClusterName`` in this machine's slurm.conf.
    """

    environment: dict[str, str] = field(default_factory=dict)
    cluster_name: str = ""


@dataclass(frozen=True)
class Site:
    """A place to compute: one TOML file.

    Attributes
    ----------
    name, title
        What it is called in code, and in words.
    scheduler
        ``"slurm"``, or ``"local"`` where workers are processes of this machine.
    nodes
        Node types by name.
    qos
        Qualities of service by name; empty where there are none.
    default_qos, default_walltime
        What a request has that names none.
    gpu_account_suffix
        Accounts that pay for GPU jobs end in this.
    interface
        Network interface between login and compute nodes; empty: loopback alone.
    scratch
        Folder for large files, with environment variables as they are written (``$SCRATCH``).
    purge_days
        Files in scratch that nobody touched for so long are deleted; None: never.
    container
        Command that runs another command in a container, with ``{image}`` for its name.
    modules
        Lines that jobs run before anything else, such as ``module load …``.
    poll_s
        Seconds between two questions to Slurm, all jobs in one.
    detect
        How this site is recognised; None: it never is, and must be named.
    """

    name: str
    title: str
    scheduler: str
    nodes: dict[str, NodeType]
    qos: dict[str, Qos] = field(default_factory=dict)
    default_qos: str = ""
    default_walltime: str = "00:30:00"
    gpu_account_suffix: str = ""
    interface: str = ""
    scratch: str = ""
    purge_days: int | None = None
    container: str = ""
    modules: tuple[str, ...] = ()
    poll_s: float = 1.0
    detect: Detect | None = None

    def __post_init__(self) -> None:
        if self.scheduler not in ("local", "slurm"):
            raise SiteError(f"scheduler {self.scheduler!r} is not known; known: local, slurm")
        if self.scheduler == "slurm" and self.default_qos not in self.qos:
            raise SiteError(
                f"default_qos {self.default_qos!r} is none of {', '.join(self.qos) or 'no qos'}"
            )
        if not self.nodes:
            raise SiteError("a site needs one node type at least: a table [nodes.NAME]")
        _above_zero(poll_s=self.poll_s)
        _at_least(1, purge_days=self.purge_days)
        walltime.parse(self.default_walltime)

    def __repr__(self) -> str:
        kinds = ", ".join(
            f"{node.count or '?'} {name} nodes of {node.gpus} GPUs"
            if node.gpus
            else f"{name} nodes"
            for name, node in self.nodes.items()
        )
        return f"Site({self.name!r}: {self.title}; {kinds}; QOS {', '.join(self.qos) or 'none'})"


def read(path: str | Path) -> Site:
    """The site of a TOML file.

    Raises
    ------
    SiteError
        The file cannot be read or is not TOML; a key is unknown (the known ones are listed),
        missing, of another type, or a number that cannot be.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SiteError(f"there is no site file {path}") from None
    except OSError as error:
        raise SiteError(f"{path} cannot be read as a site file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SiteError(f"{path}: byte {error.start} is not UTF-8, which TOML is") from None
    except tomllib.TOMLDecodeError as error:
        raise SiteError(f"{path}: not TOML: {error}") from None
    try:
        return _value(Site, table, "")
    except ValueError as error:
        raise SiteError(f"{path}: {error}") from None


def _value(kind: Any, table: Any, where: str) -> Any:
    """A dataclass from a TOML table, checked key by key against the dataclass's own fields."""
    if not isinstance(table, dict):
        raise SiteError(f"{where.rstrip('.')} must be a table")
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise SiteError(f"unknown key {where}{key}; known: {', '.join(sorted(hints))}")
    for item in dataclasses.fields(kind):
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and item.name not in table:
            raise SiteError(f"the key {where}{item.name} is missing")
    values = {key: _typed(hints[key], one, f"{where}{key}") for key, one in table.items()}
    try:
        return kind(**values)
    except ValueError as error:  # the value's own checks, which do not know where it stands
        raise SiteError(f"{where.rstrip('.')}: {error}" if where else str(error)) from None


def _typed(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):  # X | None; TOML has no None, a key is left out instead
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        return _value(hint, value, f"{where}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(arguments[1], one, f"{where}.{key}") for key, one in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(arguments[0], one, where) for one in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        kind = {dict: "table", tuple: "list"}.get(origin or hint, getattr(hint, "__name__", ""))
        raise SiteError(f"{where} = {value!r} must be of type {kind}")
    return value


def _at_least(least: int, **numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not number >= least:
            raise SiteError(f"{name} = {number} must be {least} or more")


def _above_zero(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise SiteError(f"{name} = {number} must be more than 0")
