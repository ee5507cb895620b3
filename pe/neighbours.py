"""Exact nearest neighbours in L2, in blocks, so that memory does not grow with the number of pairs."""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch

BLOCK = 1 << 24  # distances held at once: 64 MiB


class NeighbourBackend(Enum):
    torch = "torch"
    faiss = "faiss"


def nearest(queries: np.ndarray, points: np.ndarray, backend: NeighbourBackend = NeighbourBackend.torch) -> np.ndarray:
    """The index of the nearest point (float32 [N, D], N >= 1) of each query (float32 [M, D]): int64 [M]; ties to the lowest."""
    if backend is NeighbourBackend.faiss:
        import faiss

        index = faiss.IndexFlatL2(points.shape[1])
        index.add(np.ascontiguousarray(points))
        return index.search(np.ascontiguousarray(queries), 1)[1][:, 0]
    z = torch.from_numpy(points)
    half_norms = z.square().sum(1) / 2
    rows = max(1, BLOCK // len(points))
    found = [(half_norms - x @ z.T).argmin(1) for x in torch.from_numpy(queries).split(rows)]
    return torch.cat(found).numpy() if found else np.empty(0, np.int64)
