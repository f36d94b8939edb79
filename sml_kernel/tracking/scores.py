"""Scores of candidate segments: from a network, and checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data

from sml_kernel import records


def score_segments(model: nn.Module, graph: Data) -> np.ndarray:
    """The model's score of each edge, shape [E], between 0 and 1, on the model's own device."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(*(graph[name].to(device) for name in ("x", "edge_index", "edge_attr")))
    model.train(training)
    return torch.sigmoid(logits).cpu().numpy()


def check_scores(scores: np.ndarray, n_edges: int) -> None:
    """Raise ValueError unless there is a finite score for each edge: nan is no low score."""
    if np.shape(scores) != (n_edges,):
        raise ValueError(f"{n_edges} edges, but scores of shape {np.shape(scores)}")
    wrong = np.count_nonzero(~np.isfinite(scores))
    if wrong:
        raise ValueError(f"{wrong} of {n_edges} scores are not finite: did the training diverge?")


def append_scores(
    writer: records.Writer, graphs: Sequence[Data], scores: Sequence[np.ndarray], n_bins: int = 50
) -> None:
    """Record how the scores of true and of false segments are distributed: a row ``scores``.

    ``edges`` [n_bins + 1], ``true`` and ``false`` [n_bins]: counts over all graphs.
    """
    edges = np.linspace(0, 1, n_bins + 1)
    counts = np.zeros((2, n_bins), int)
    for graph, each in zip(graphs, scores, strict=True):
        check_scores(each, int(graph.num_edges))
        for truth in (0, 1):
            counts[truth] += np.histogram(each[graph.y.numpy() == truth], edges)[0]
    writer.append("scores", edges=edges, true=counts[1], false=counts[0])
