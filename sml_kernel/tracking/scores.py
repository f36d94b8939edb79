"""Scores of candidate segments: from a network, checked, and how well they tell true ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
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


def score_edges(
    y: np.ndarray, scores: np.ndarray, target: np.ndarray, cut: float
) -> dict[str, float]:
    """Edge figures by acorn's definitions.

    Parameters
    ----------
    y
        [E] whether an edge is a true segment.
    scores
        [E] between 0 and 1.
    target
        [E] whether it is one that counts (of a fiducial particle).
    cut
        Edges of a higher score are taken.

    Returns
    -------
    dict
        ``eff``, ``target_pur``, ``total_pur``, ``pur`` and ``auc`` (on target truth).
    """
    check_scores(scores, len(y))
    y, target = np.asarray(y, bool), np.asarray(target, bool) & np.asarray(y, bool)
    taken = np.asarray(scores) > cut
    n, hit = int(taken.sum()), int((taken & target).sum())
    others = int((taken & y & ~target).sum())
    return {
        "eff": hit / target.sum() if target.any() else float("nan"),
        "target_pur": hit / n if n else float("nan"),
        "total_pur": (hit + others) / n if n else float("nan"),
        "pur": hit / (n - others) if n > others else float("nan"),
        "auc": _auc(target, np.asarray(scores)),
    }


def _auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve from ranks (Mann–Whitney), ties shared; nan without both classes."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = pd.Series(scores).rank().to_numpy()
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
