"""A small training, of graphs that take no simulation, for several test files."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

EPOCHS = 20  # of 10 graphs, 4 a step: two full steps and one of the two that are left
ASKED = {
    "hidden": 16,
    "iterations": 2,
    "batch": 4,
    "epochs": EPOCHS,
    "learning_rate": 1e-3,
    "threads": 1,
    "checkpoint_every_s": 0.2,
}


def graph(seed: int, edges: int) -> Data:
    """Edges that point along x are true: something to learn."""
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(edges // 4, 3, generator=made)
    edge_index = torch.randint(len(x), (2, edges), generator=made)
    edge_attr = (x[edge_index[1]] - x[edge_index[0]])[:, :2]
    y = (edge_attr[:, 0] > 0).float()
    return Data(x=x, edge_index=edge_index, edge_attr=edge_attr, y=y, weight=torch.ones(edges))


def graphs() -> tuple[list[Data], list[Data]]:
    """To train on, and held out."""
    sizes = np.random.default_rng(0).integers(3000, 6000, 12).tolist()
    made = [graph(seed, edges) for seed, edges in enumerate(sizes)]
    return made[:10], made[10:]
