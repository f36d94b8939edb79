"""Collision events, graphs of their hits, the graph network, the tracks it finds, and metrics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sml_kernel.tracking.benchmark import StepBenchmark, step_benchmark
    from sml_kernel.tracking.compilation import compiled
    from sml_kernel.tracking.cuts import learn_cuts
    from sml_kernel.tracking.events import Event, InputError
    from sml_kernel.tracking.fiducial import Fiducial
    from sml_kernel.tracking.form import Form
    from sml_kernel.tracking.graphs import build_graphs, summarise_graphs
    from sml_kernel.tracking.inference import InferenceTimes, time_inference
    from sml_kernel.tracking.kalman import KalmanSettings, kalman_tracks
    from sml_kernel.tracking.metrics import score_tracks
    from sml_kernel.tracking.model import InteractionGNN
    from sml_kernel.tracking.pyg import read_acorn
    from sml_kernel.tracking.readers import read_acts_csv, read_colliderml, read_trackml
    from sml_kernel.tracking.scores import append_scores, score_edges, score_segments
    from sml_kernel.tracking.shipped import Pretrained, pretrained
    from sml_kernel.tracking.simulation import simulate
    from sml_kernel.tracking.splitting import join_parts, split_graph
    from sml_kernel.tracking.stages import score_stages
    from sml_kernel.tracking.tracks import find_tracks, join_segments
    from sml_kernel.tracking.training import TrainingRun, train

_MODULES = {
    "Event": "events",
    "Fiducial": "fiducial",
    "Form": "form",
    "InferenceTimes": "inference",
    "InputError": "events",
    "InteractionGNN": "model",
    "KalmanSettings": "kalman",
    "Pretrained": "shipped",
    "StepBenchmark": "benchmark",
    "TrainingRun": "training",
    "append_scores": "scores",
    "build_graphs": "graphs",
    "compiled": "compilation",
    "find_tracks": "tracks",
    "join_parts": "splitting",
    "join_segments": "tracks",
    "kalman_tracks": "kalman",
    "learn_cuts": "cuts",
    "pretrained": "shipped",
    "read_acorn": "pyg",
    "read_acts_csv": "readers",
    "read_colliderml": "readers",
    "read_trackml": "readers",
    "score_edges": "scores",
    "score_segments": "scores",
    "score_stages": "stages",
    "score_tracks": "metrics",
    "simulate": "simulation",
    "split_graph": "splitting",
    "step_benchmark": "benchmark",
    "summarise_graphs": "graphs",
    "time_inference": "inference",
    "train": "training",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"sml_kernel.tracking has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
