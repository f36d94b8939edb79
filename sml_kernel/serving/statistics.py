"""What a Triton counts of a model: requests, batches, and where their time went."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.serving.transports import Transport


@dataclass(frozen=True)
class Statistics:
    """Sums since the model was loaded, or between two readings: ``after - before``.

    Attributes
    ----------
    requests, failed
        That the model answered, by an error of its own too, and that failed otherwise.
    inferences, executions
        Batch entries (rows; of a ragged model requests), and calls of the model.
    total_s
        Of the answered requests, from arrival at the server to its answer.
    queue_s
        Waited for an instance or for others to join.
    compute_s
        In the model and in handing data to it and back; a call counts for each request in it.
    """

    requests: int
    failed: int
    inferences: int
    executions: int
    total_s: float
    queue_s: float
    compute_s: float

    def __sub__(self, before: Statistics) -> Statistics:
        pairs = ((getattr(self, each.name), getattr(before, each.name)) for each in fields(self))
        return Statistics(*(now - then for now, then in pairs))

    @property
    def mean_batch(self) -> float:
        """Batch entries a call; nan without a call."""
        return self.inferences / self.executions if self.executions else float("nan")


def statistics(transport: Transport, name: str) -> Statistics:
    """Read the counters of a model, summed over its versions. Raises as tritonclient does."""
    return sum_of([_of(each) for each in transport.statistics(name)])


def sum_of(parts: list[Statistics]) -> Statistics:
    """The sums of several, as of versions or of servers."""
    names = [each.name for each in fields(Statistics)]
    return Statistics(*(sum(getattr(part, name) for part in parts) for name in names))


def _of(said: dict[str, Any]) -> Statistics:
    """Of one version, as JSON; over gRPC numbers are strings and zeros are missing."""
    inner = said.get("inference_stats", {})

    def seconds(*names: str) -> float:
        return sum(int(inner.get(name, {}).get("ns", 0)) for name in names) / 1e9

    return Statistics(
        requests=int(inner.get("success", {}).get("count", 0)),
        failed=int(inner.get("fail", {}).get("count", 0)),
        inferences=int(said.get("inference_count", 0)),
        executions=int(said.get("execution_count", 0)),
        total_s=seconds("success"),
        queue_s=seconds("queue"),
        compute_s=seconds("compute_input", "compute_infer", "compute_output"),
    )
