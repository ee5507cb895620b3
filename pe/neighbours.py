"""Exact nearest neighbours in L2, in blocks of one size: memory does not grow with the number of pairs, and with `torch` the
nearest point of a query does not depend on the other queries."""

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
    found = np.empty(len(queries), np.int64)
    block = torch.zeros(max(1, min(512, BLOCK // len(points))), points.shape[1])
    for start in range(0, len(queries), len(block)):
        rows = min(len(block), len(queries) - start)
        block[:rows] = torch.from_numpy(queries[start : start + rows])  # always as many: rounding depends on it
        found[start : start + rows] = (half_norms - block @ z.T).argmin(1)[:rows].numpy()
    return found
