"""Work in passes of one size: a network's rounding depends on how many rows it sees at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tracking import ranks
from tracking.progress import Advance


def in_passes(
    count: int, rows: int, shape: tuple[int, int, int], make: Callable[[np.ndarray], np.ndarray], advance: Advance | None
) -> np.ndarray:
    """uint8 [count, *shape] from `make(row numbers [rows])`, passes shared among processes; the last repeats rows to be full."""
    out = np.zeros((count, *shape), np.uint8)
    rows_of_all = rows * ranks.world()
    for first in range(0, count, rows_of_all):
        start = first + rows * ranks.share()
        mine = np.arange(start, min(start + rows, count))
        if len(mine):
            out[mine] = make(np.resize(mine, rows))[: len(mine)]
        if advance:
            advance(min(rows_of_all, count - first))
    ranks.sum_over_ranks([torch.from_numpy(out)])
    return out


def embed_in_passes(images: np.ndarray, rows: int, dim: int, vectors: Callable[[np.ndarray], torch.Tensor]) -> np.ndarray:
    """float32 [N, dim] from `vectors(uint8 [rows, H, W, C])`; the last pass is filled up with black."""
    out = np.empty((len(images), dim), np.float32)
    for start in range(0, len(images), rows):
        part = images[start : start + rows]
        batch = np.zeros((rows, *images.shape[1:]), np.uint8)
        batch[: len(part)] = part
        out[start : start + len(part)] = vectors(batch)[: len(part)].float().cpu().numpy()
    return out
