"""Scores of held-out graphs after an epoch, whatever the number of ranks that share them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sml_kernel.tracking import sampler
from sml_kernel.tracking.prefetch import graphs_ahead
from sml_kernel.tracking.step import edge_loss
from sml_kernel.tracking.store import GraphStore

_BINS = 2000  # of the score histogram from which the area under the ROC curve is taken


def validate(
    model: nn.Module, graphs: GraphStore, rank: int, ranks: int, device: torch.device
) -> dict[str, float]:
    """Loss, efficiency, purity at 0.5 and ROC area over all validation edges, on every rank.

    Empty without validation graphs. Ranks share them by edges; sums and score histograms are added
    over ranks, so that the figures do not depend on their number.
    """
    if not len(graphs):
        return {}
    model.eval()
    # on the device: nccl adds up nothing else
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    histogram = torch.zeros(2, _BINS, dtype=torch.float64, device=device)
    mine = sampler.deal(range(len(graphs)), graphs.edges, ranks)[rank]
    with torch.no_grad(), graphs_ahead(graphs, mine, device) as ahead:
        for graph in ahead:
            logits = model(graph.x, graph.edge_index, graph.edge_attr)
            loss = edge_loss(logits, graph.y, graph.weight)
            sums += torch.stack([loss, graph.weight.sum()]).double()
            own = graph.own if "own" in graph else torch.ones_like(graph.y, dtype=torch.bool)
            scores = torch.sigmoid(logits).float()
            for truth in (0, 1):
                histogram[truth] += torch.histc(scores[own & (graph.y == truth)], _BINS, 0, 1)
    model.train()
    if ranks > 1:
        dist.all_reduce(sums)
        dist.all_reduce(histogram)
    return {"validation_loss": float(sums[0] / sums[1]), **_edge_figures(histogram.cpu())}


def _edge_figures(histogram: Tensor) -> dict[str, float]:
    false, true = histogram
    taken_true, taken_false = true[_BINS // 2 :].sum(), false[_BINS // 2 :].sum()
    below = torch.cumsum(false, 0) - false / 2  # false edges that score lower, ties by halves
    return {
        "edge_efficiency": float(taken_true / true.sum()),
        "edge_purity": float(taken_true / (taken_true + taken_false)),
        "auc": float((true * below).sum() / (true.sum() * false.sum())),
    }
