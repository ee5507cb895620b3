"""Exact nearest neighbours in L2, in blocks of one size: memory does not grow with the number of pairs, and with `torch` the
nearest points of a query do not depend on the other queries."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import numpy as np
import torch

BLOCK = 1 << 24  # distances held at once: 64 MiB
LONGEST = 1e37  # squared length: float32 ends at 3.4e38
VALUES = 1 << 23  # of queries or points held at once in float64: 64 MiB


class NeighbourBackend(Enum):
    torch = "torch"
    faiss = "faiss"


def nearest(queries: np.ndarray, points: np.ndarray, backend: NeighbourBackend = NeighbourBackend.torch) -> np.ndarray:
    """The index of the nearest point (float32 [N, D], N >= 1) of each query (float32 [M, D]): int64 [M]; ties to the lowest.

    A vector that is not finite, or too long to be squared, is nearest to nothing, and nothing to it: -1 for a query without one.
    """
    able, there = _measurable(queries), _measurable(points)
    if able.all() and there.all():
        return _nearest(queries, points, backend)
    found = np.full(len(queries), -1, np.int64)
    if there.any():
        found[able] = np.flatnonzero(there)[_nearest(queries[able], points[there], backend)]
    return found


def _measurable(vectors: np.ndarray) -> np.ndarray:
    """bool [N]: no product of two of these float32 [N, D] overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.einsum("nd,nd->n", vectors, vectors) < LONGEST


def _nearest(queries: np.ndarray, points: np.ndarray, backend: NeighbourBackend) -> np.ndarray:
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


def k_nearest(queries: np.ndarray, points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest points (float32 [N, D], N >= k) of each query (float32 [M, D]).

    Distances, float32 [M, k], ascending, and indices, int64 [M, k]. Computed in float64: a copy is at distance 0 exactly. A point
    that is among its own queries is its own nearest.
    """
    if not 1 <= k <= len(points):
        raise ValueError(f"k={k}: 1 to the number of points, {len(points)}")
    distances, indices = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    best, found = torch.empty(0), torch.empty(0)
    for rows, columns, squared in distance_blocks(queries, points):
        near, where = squared.topk(min(k, squared.shape[1]), largest=False)
        if columns.start > 0:
            near, where = torch.cat([best, near], 1), torch.cat([found, where + columns.start], 1)
        best, order = near.topk(min(k, near.shape[1]), largest=False)
        found = where.gather(1, order)
        if columns.stop == len(points):
            distances[rows], indices[rows] = _exact(queries[rows], points, found.numpy())
    return distances, indices


def distance_blocks(queries: np.ndarray, points: np.ndarray) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Squared distances of all pairs: (rows of `queries`, columns of `points`, float64 [rows, columns]), block by block."""
    at_once = max(1, VALUES // points.shape[1])
    height, width = min(512, at_once), min(4096, at_once)
    centre = points.mean(0, dtype=np.float64)
    q = torch.zeros(height, points.shape[1], dtype=torch.float64)
    for top in range(0, len(queries), height):
        rows = slice(top, min(top + height, len(queries)))
        q[: rows.stop - top] = torch.from_numpy(queries[rows] - centre)  # always as many: rounding depends on it
        norms = q.square().sum(1, keepdim=True)
        for left in range(0, len(points), width):
            columns = slice(left, min(left + width, len(points)))
            z = torch.from_numpy(points[columns] - centre)
            squared = torch.addmm(norms + z.square().sum(1), q, z.T, alpha=-2)
            yield rows, columns, squared[: rows.stop - top].clamp_min(0)


def _exact(queries: np.ndarray, points: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances float32 [M, k] to the points of these indices, from differences, which do not cancel as products do; sorted."""
    squared = np.empty(found.shape)
    for j, column in enumerate(found.T):
        squared[:, j] = np.square(points[column].astype(np.float64) - queries).sum(1)
    order = np.lexsort((found, squared))
    return np.sqrt(np.take_along_axis(squared, order, 1)).astype(np.float32), np.take_along_axis(found, order, 1)
