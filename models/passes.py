"""Work in passes. What is generated is never padded; what private images go through is, as rounding depends on a pass's rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tracking import ranks
from tracking.progress import Advance


def in_passes(
    count: int, rows: int, shape: tuple[int, int, int], make: Callable[[np.ndarray], np.ndarray], advance: Advance | None
) -> np.ndarray:
    """uint8 [count, *shape] from `make(row numbers)` in passes of `rows`, the last one shorter; shared among processes.

    The passes are the same for any number of processes, and so, bitwise, is the result.
    """
    out = np.zeros((count, *shape), np.uint8)
    rows_of_all = rows * ranks.world()
    for first in range(0, count, rows_of_all):
        start = first + rows * ranks.share()
        mine = np.arange(start, min(start + rows, count))
        if len(mine):
            out[mine] = make(mine)
        if advance:
            advance(min(rows_of_all, count - first))
    ranks.sum_over_ranks([torch.from_numpy(out)])
    return out


def embed_in_passes(images: np.ndarray, rows: int, dim: int, vectors: Callable[[np.ndarray], torch.Tensor]) -> np.ndarray:
    """float32 [N, dim] from `vectors(uint8 [rows, H, W, C])`; the last pass is filled up with black.

    An image's vector depends on no other image: one private image more or less moves no other's vote.
    """
    out = np.empty((len(images), dim), np.float32)
    for start in range(0, len(images), rows):
        part = images[start : start + rows]
        batch = np.zeros((rows, *images.shape[1:]), np.uint8)
        batch[: len(part)] = part
        out[start : start + len(part)] = vectors(batch)[: len(part)].float().cpu().numpy()
    return out


def rows_that_fit(attempt: Callable[[int], None], rows: int, most: int = 4096) -> int:
    """The largest of rows, 2·rows, 4·rows … up to `most` that `attempt` has the GPU memory for; `rows` is taken to fit."""
    while 2 * rows <= most:
        try:
            attempt(2 * rows)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        rows *= 2
    return rows
