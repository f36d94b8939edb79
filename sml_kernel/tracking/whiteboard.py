"""What ACTS' sequencer and our tables hand each other: hits in, tracks out, without files."""

from __future__ import annotations

from typing import Any

import acts
import acts.examples
import numpy as np

from sml_kernel.tracking import detector
from sml_kernel.tracking.events import Event
from sml_kernel.tracking.sensors import local_positions

MEASUREMENTS, MEASUREMENTS_USED = "measurements", "measurements_used"
_QUIET = acts.logging.ERROR


class HitReader(acts.examples.IReader):
    """Hands an event's hits to ACTS: measurement k is hit ``order[k]``.

    They are ordered by sensor, as the container keeps them so and is slow to insert.
    """

    def __init__(self, event: Event) -> None:
        super().__init__("SmlHits", _QUIET)
        self._sensor, self._local = local_positions(event)
        resolution = detector.resolution(event.hits.volume_id.to_numpy())
        self._variance = np.square(np.stack(resolution, axis=1))
        self.order = np.argsort(self._sensor, kind="stable")
        self._write = acts.examples.WriteDataHandle(
            self, acts.examples.MeasurementContainer, "Measurements"
        )
        self._write.initialize(MEASUREMENTS)

    def availableEvents(self) -> tuple[int, int]:  # noqa: N802
        return 0, 1

    def read(self, context: Any) -> Any:
        self._write(context, self.measurements())
        return acts.examples.ProcessCode.SUCCESS

    def measurements(self) -> Any:
        """A new container of all hits; both coordinates are measured in every part."""
        made = acts.examples.MeasurementContainer()
        made.reserve(len(self.order))
        for hit in self.order:
            sensor = acts.GeometryIdentifier(int(self._sensor[hit]))
            made.emplaceMeasurement(sensor, [0, 1], self._local[hit], self._variance[hit])
        return made


class MeasurementMarker(acts.examples.IAlgorithm):
    """Marks every measurement as one to be used, which ACTS' algorithms ask for."""

    def __init__(self) -> None:
        super().__init__("SmlAll", _QUIET)
        examples = acts.examples
        self._read = examples.ReadDataHandle(self, examples.MeasurementContainer, "Measurements")
        self._read.initialize(MEASUREMENTS)
        self._write = examples.WriteDataHandle(self, examples.MeasurementSubset, "Subset")
        self._write.initialize(MEASUREMENTS_USED)

    def execute(self, context: Any) -> Any:
        whole = self._read(context.eventStore)
        self._write(context, acts.examples.MeasurementSubset(whole, range(len(whole))))
        return acts.examples.ProcessCode.SUCCESS


class TrackCollector(acts.examples.IAlgorithm):
    """Takes tracks from ACTS: of each, χ² a degree of freedom and its measurements."""

    def __init__(self, name: str) -> None:
        super().__init__("SmlTracks", _QUIET)
        self.found: list[tuple[float, list[int]]] = []
        examples = acts.examples
        self._read = examples.ReadDataHandle(self, examples.ConstTrackContainer, "Tracks")
        self._read.initialize(name)

    def execute(self, context: Any) -> Any:
        index_of = acts.examples.IndexSourceLink.fromSourceLink
        for track in self._read(context.eventStore):
            measured = [
                index_of(state.uncalibratedSourceLink).index()
                for state in track.trackStatesReversed
                if state.typeFlags.isMeasurement
            ]
            self.found.append((track.chi2 / max(track.nDoF, 1), measured))
        return acts.examples.ProcessCode.SUCCESS
