"""Exact nearest neighbours in L2, in blocks: memory does not grow with the number of pairs, and the nearest points of a query
depend neither on the other queries nor on the device that finds them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

import numpy as np
import torch

BLOCK = {"cpu": 1 << 23, "cuda": 1 << 27}  # distances held at once, with as many products: 64 MiB, 1 GiB
LONGEST = 1e37  # squared length: float32 ends at 3.4e38
VALUES = 1 << 22  # of queries or points, or pairs of them, held at once in float64: 32 MiB
SOME = 256  # points that a centre is of
CPU = torch.device("cpu")


class NeighbourBackend(Enum):
    torch = "torch"
    faiss = "faiss"


def nearest(
    queries: np.ndarray, points: np.ndarray, backend: NeighbourBackend = NeighbourBackend.torch, device: torch.device = CPU
) -> np.ndarray:
    """The index of the nearest point (float32 [N, D], N >= 1) of each query (float32 [M, D]): int64 [M]; ties to the lowest.

    A vector that is not finite, or too long to be squared, is nearest to nothing, and nothing is to it: -1 where a query has no
    point. `torch` computes on the device, and is exact up to float64; `faiss` is exact up to float32, on the processor.
    """
    able, kept = _measurable(queries), np.flatnonzero(_measurable(points))
    find: Callable[[np.ndarray, np.ndarray], np.ndarray] = _by_faiss
    if backend is NeighbourBackend.torch:
        kept = np.intersect1d(kept, _first_rows(points))  # a population may collapse to copies
        find = functools.partial(_by_torch, device=device)
    if able.all() and len(kept) == len(points):
        return find(queries, points)
    found = np.full(len(queries), -1, np.int64)
    if len(kept):
        found[able] = kept[find(queries[able], points[kept])]
    return found


def _first_rows(points: np.ndarray) -> np.ndarray:
    """The rows without those that repeat an earlier one: int64, ascending."""
    first: dict[bytes, int] = {}
    for row, point in enumerate(np.ascontiguousarray(points)):
        first.setdefault(hashlib.blake2b(point.data, digest_size=16).digest(), row)
    return np.fromiter(first.values(), np.int64, len(first))


def _measurable(vectors: np.ndarray) -> np.ndarray:
    """bool [N]: no product of two of these float32 [N, D] overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.einsum("nd,nd->n", vectors, vectors) < LONGEST


def _by_faiss(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatL2(points.shape[1])
    index.add(np.ascontiguousarray(points))
    return index.search(np.ascontiguousarray(queries), 1)[1][:, 0]


def _by_torch(queries: np.ndarray, points: np.ndarray, device: torch.device) -> np.ndarray:
    """By |z|²/2 - q·z in float32 and, of the points that this cannot tell from the least, by differences in float64."""
    centre = np.median(points[:: -(-len(points) // SOME)], axis=0)  # any will do; one far point does not move this one
    z = torch.from_numpy(points - centre).to(device)
    half = z.square().sum(1) / 2
    lengths = (2 * half).sqrt()
    # What float32 rounds in a product of D terms, in any order, in |z|² and in the shift (Higham 2002, eq. 3.5), in all; and
    # what it loses where products are below its least normal number
    terms = points.shape[1] + 16
    rounded, lost = terms * 2.0**-24, terms * torch.finfo(torch.float32).tiny
    found = np.empty(len(queries), np.int64)
    height = max(1, BLOCK.get(device.type, BLOCK["cpu"]) // len(points))
    for start in range(0, len(queries), height):
        some = slice(start, start + height)
        q = torch.from_numpy(queries[some] - centre).to(device)
        own = torch.linalg.vector_norm(q, dim=1)
        with _float32_products():
            scores = half - q @ z.T
        least, where = scores.min(1)
        slack = 2 * (rounded * (own + lengths.max()).square() + lost)
        unsure = ((scores <= (least + slack)[:, None]).sum(1) > 1).nonzero()[:, 0]
        found[some] = where.cpu().numpy()
        at_once = max(1, VALUES // len(points))
        for part in unsure.split(at_once):  # with a bound for each point: one may be far longer than all others
            error = rounded * (own[part, None] + lengths).square() + lost
            near = scores[part] - error <= (scores[part] + error).min(1, keepdim=True).values
            rows, columns = (index.cpu().numpy() for index in near.nonzero(as_tuple=True))
            numbers = start + part.cpu().numpy()
            found[numbers] = _nearest_of(queries, points, numbers[rows], columns)
    return found


def _nearest_of(queries: np.ndarray, points: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The nearest point for each query, int64, queries ascending; `rows` and `columns` are pairs of a query and a point."""
    squared = np.empty(len(rows))
    at_once = max(1, VALUES // points.shape[1])
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        squared[some] = np.square(queries[rows[some]].astype(np.float64) - points[columns[some]]).sum(1)
    order = np.lexsort((columns, squared, rows))
    return columns[order[np.unique(rows[order], return_index=True)[1]]]


@contextmanager
def _float32_products() -> Iterator[None]:
    """Whatever else this process allows its GPU to round."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
