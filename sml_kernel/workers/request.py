"""What is asked of a site: checked against its limits, cut into jobs, and priced. No Dask here."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from sml_kernel.sites import NodeType, Qos, Site
from sml_kernel.sites import walltime as times
from sml_kernel.workers.limits import RequestError, check, counted, whole, word


@dataclass(frozen=True)
class Shape:
    """One job: `per_node` workers on each of `nodes` nodes."""

    nodes: int
    per_node: int

    @property
    def workers(self) -> int:
        """Workers of the job."""
        return self.nodes * self.per_node


@dataclass(frozen=True)
class Request:
    """Workers asked of a site. Made by `request`, which fills in what was left open.

    Attributes
    ----------
    site
        Where.
    node_type
        Name of the node type in `Site.nodes`.
    gpus, cpus
        Workers with a GPU each, or workers with a core each; one of the two is 0.
    nodes
        Nodes that one job spans; None: a job keeps to one node.
    walltime_s
        Seconds after which Slurm ends a job.
    account, qos
        Who pays and under which terms; None and ``""``: Slurm's own default, or no Slurm.
    """

    site: Site
    node_type: str
    gpus: int
    cpus: int
    nodes: int | None
    walltime_s: int
    account: str | None
    qos: str

    @property
    def workers(self) -> int:
        """Worker processes in all."""
        return self.gpus or self.cpus

    @property
    def node(self) -> NodeType:
        """The node type."""
        return self.site.nodes[self.node_type]

    @property
    def terms(self) -> Qos:
        """What the QOS allows and charges."""
        return self.site.qos.get(self.qos, Qos())

    @property
    def what(self) -> str:
        """``"GPUs"`` or ``"CPUs"``."""
        return "GPUs" if self.gpus else "CPUs"

    @property
    def capacity(self) -> int:
        """Workers that fit on a node: one a GPU, or one a core."""
        return (self.node.gpus if self.gpus else self.node.cores) or 1

    @property
    def cores_per_worker(self) -> int:
        """A worker's share of its node's physical cores."""
        return max(1, (self.node.cores or 1) // self.capacity)

    def shapes(self, workers: int) -> list[Shape]:
        """The jobs that give exactly so many workers.

        Without `nodes` a job keeps to one node, and jobs differ by one worker at most; with it all
        jobs are alike, and `workers` must be a multiple of theirs.
        """
        if self.nodes is not None:
            unit = Shape(self.nodes, self.workers // self.nodes)
            if workers % unit.workers:
                raise RequestError(
                    f"jobs here have {unit.workers} {self.what} on {self.nodes} nodes, you asked "
                    f"for {workers}: ask for a multiple"
                )
            return [unit] * (workers // unit.workers)
        if self.site.scheduler == "local":
            return [Shape(1, workers)]
        jobs = math.ceil(workers / self.capacity)
        return [Shape(1, workers // jobs + (index < workers % jobs)) for index in range(jobs)]

    def node_hours(self, shape: Shape, hours: float) -> float:
        """Node-hours charged for a job of this shape that runs so long.

        A QOS of whole nodes charges all of them; else the share of a node's GPUs or cores.
        """
        share = 1.0 if self.terms.whole_nodes else shape.per_node / self.capacity
        return shape.nodes * share * hours * self.terms.charge_factor

    def price(self, shapes: list[Shape], retries: int) -> str:
        """What these jobs cost at most, in one line, each of them replaced so many times."""
        hours = self.walltime_s / 3600
        total = sum(self.node_hours(shape, hours) for shape in shapes)
        nodes = sum(shape.nodes for shape in shapes)
        most = f"{total:.4g} node-hours"
        if retries:  # a replacement may run as long as what it replaces
            most += f", up to {total * (1 + retries):.4g} if lost jobs are replaced"
        return (
            f"{counted(len(shapes), 'job')} on {counted(nodes, self.node_type + ' node')} for "
            f"{times.text(self.walltime_s)} in {self.qos}: {most} "
            f"(charge factor {self.terms.charge_factor:g}), "
            + (f"account {self.account}" if self.account else "your default account")
        )


def request(
    site: Site,
    *,
    gpus: int | None = None,
    cpus: int | None = None,
    nodes: int | None = None,
    walltime: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    node_type: str | None = None,
) -> Request:
    """A request with its defaults filled in, checked against the site's limits.

    For the parameters see `sml_kernel.launch`.

    Raises
    ------
    RequestError
        It is beyond a limit, contradicts itself, is no whole number where one is counted, or names
        something that the site does not have or Slurm could not read.
    ValueError
        A wall time in another form than ``[D-]HH:MM:SS``.
    """
    site = _measured(site)
    gpus, cpus = whole("gpus", gpus, 0), whole("cpus", cpus, 0)
    nodes = whole("nodes", nodes, 1)
    account, qos = word("account", account), word("qos", qos)
    name, gpus, cpus = _chosen(site, gpus, cpus, nodes, node_type)
    if nodes is not None and (gpus or cpus) % nodes:
        raise RequestError(
            f"{gpus or cpus} workers do not divide among {nodes} nodes: ask for a multiple of them"
        )
    qos = (qos or site.default_qos) if site.qos else ""
    # a QOS that the site's file does not know is for Slurm to refuse: users have QOS of their own
    limit_s = site.qos.get(qos, Qos()).walltime_s
    default_s = times.parse(site.default_walltime)
    walltime_s = min(default_s, limit_s or default_s)
    if walltime not in (None, ""):
        walltime_s = times.parse(walltime)
    asked = Request(site, name, gpus, cpus, nodes, walltime_s, account, qos)
    check(asked, asked.shapes(asked.workers))
    return asked


def _chosen(
    site: Site, gpus: int | None, cpus: int | None, nodes: int | None, node_type: str | None
) -> tuple[str, int, int]:
    """Node type, workers with a GPU, workers without."""
    if gpus and cpus:
        raise RequestError(f"ask for gpus or for cpus, not both (gpus={gpus}, cpus={cpus})")
    if node_type is not None and node_type not in site.nodes:
        raise RequestError(
            f"{site.name} has no node type {node_type!r}; known: {', '.join(site.nodes)}"
        )
    wants_gpus = bool(gpus) if gpus is not None or cpus else None
    fitting = [
        name
        for name, node in site.nodes.items()
        if wants_gpus is None or bool(node.gpus) == wants_gpus
    ]
    if wants_gpus and not (site.nodes[node_type].gpus if node_type else fitting):
        raise RequestError(
            f"{node_type or site.name} has no GPUs, you asked for {gpus}: ask for cpus instead"
        )
    name = node_type or next(iter(fitting or site.nodes))
    node = site.nodes[name]
    if gpus or cpus:
        return name, gpus or 0, cpus or 0
    if gpus is None and cpus is None and node.gpus:  # nothing asked: whole nodes, or one GPU
        return name, nodes * node.gpus if nodes else 1, 0
    if cpus == 0:
        raise RequestError("gpus and cpus are both 0: ask for one worker at least")
    return name, 0, (nodes or 1) * min(4, node.cores or 1)


def _measured(site: Site) -> Site:
    """A local site with what this machine has where its file leaves numbers out."""
    if site.scheduler != "local":
        return site
    here = NodeType(
        gpus=len(visible_gpus()),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        count=1,
    )
    nodes = {}
    for name, node in site.nodes.items():
        stated = {key: one for key, one in vars(node).items() if one is not None}
        nodes[name] = replace(here, **stated)
    return replace(site, nodes=nodes)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    That variable's own list where it is set, else the device files of this machine: neither needs
    a driver's library, so it costs nothing to ask.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip() not in ("", "-1")]
    files = [path.name for path in Path("/dev").glob("nvidia*")]
    return sorted((name[6:] for name in files if name[6:].isdigit()), key=int)
