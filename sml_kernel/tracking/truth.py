"""True segments of an event: which hits follow each other on a particle's way."""

from __future__ import annotations

import numpy as np

from sml_kernel.tracking.events import Event
from sml_kernel.tracking.hits import expand, layer_key


def true_segments(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of hits (rows of ``event.hits``) that follow each other on a particle's way.

    A particle's hits are ordered by their distance from its production vertex. Hits that follow
    each other on the same layer, where modules overlap, form a group; every hit of a group is
    joined to every hit of the next.
    """
    hits = event.hits
    vertices = event.particles.set_index("particle_id")[["vx", "vy", "vz"]]
    rows = np.flatnonzero(hits.particle_id.to_numpy() != 0)
    particle = hits.particle_id.to_numpy()[rows]
    start = vertices.reindex(particle).fillna(0.0).to_numpy(float)
    distance = np.linalg.norm(hits[["x", "y", "z"]].to_numpy(float)[rows] - start, axis=1)
    order = np.lexsort((distance, particle))
    rows, particle = rows[order], particle[order]
    layer = layer_key(hits)[rows]
    new_particle = np.diff(particle, prepend=particle[:1] - 1) != 0
    new_group = new_particle | (np.diff(layer, prepend=layer[:1] - 1) != 0)
    group = np.cumsum(new_group) - 1
    starts = np.flatnonzero(new_group)
    stops = np.append(starts[1:], len(rows))
    continues = np.append(~new_particle[starts[1:]], False) if len(starts) else np.zeros(0, bool)
    following = np.minimum(group + 1, len(starts) - 1)
    counts = np.where(continues[group], (stops - starts)[following], 0)
    source, offset = expand(counts)
    return rows[source], rows[starts[following[source]] + offset]
