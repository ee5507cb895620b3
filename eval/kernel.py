"""The kernel distance between two sets of images (Bińkowski et al. 2018): KID where the space is Inception's."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Chooser(Protocol):
    """A random generator of NumPy, of either kind."""

    def choice(self, a: int, size: int, replace: bool) -> np.ndarray: ...


def kernel_distance(a: np.ndarray, b: np.ndarray, *, subsets: int, subset_size: int, rng: Chooser) -> tuple[float, float]:
    """Mean of `squared_mmd` over random subsets of float features [N, D] and [M, D], N, M >= 4, and its standard error.

    Subsets are of half of the smaller set at most: the mean estimates the same distance at any size.
    """
    smaller = min(len(a), len(b))
    size = min(subset_size, smaller // 2)
    found = subset_distances(a, b, subsets=subsets, subset_size=size, rng=rng)
    return float(found.mean()), standard_error(found, size / smaller)


def subset_distances(a: np.ndarray, b: np.ndarray, *, subsets: int, subset_size: int, rng: Chooser) -> np.ndarray:
    """`squared_mmd` of each of `subsets` pairs of subsets, each drawn without replacement: float64 [subsets]."""
    return np.array(
        [
            squared_mmd(a[rng.choice(len(a), subset_size, replace=False)], b[rng.choice(len(b), subset_size, replace=False)])
            for _ in range(subsets)
        ]
    )


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Of float [N, D] and [M, D], N, M >= 2, with the kernel (x·y / D + 1)³; unbiased, so that it may be negative.

    Gretton et al. 2012, eq. 3.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)

    def mean_of_pairs(z: np.ndarray) -> float:
        k = _kernel(z, z)
        return (k.sum() - np.trace(k)) / (len(z) * (len(z) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * _kernel(x, y).mean())


def standard_error(found: np.ndarray, share: float) -> float:
    """Of the mean of what was found on two or more subsets, each a `share` (below 1) of the images.

    Subsets of the same images overlap, so that their spread over the root of their number would promise too much: the delete-d
    jackknife (Shao & Wu 1989) makes of it the error that another draw of all images would show, and the error of having
    looked at some subsets only is added.
    """
    return float(found.std(ddof=1) * np.sqrt(share / (1 - share) + 1 / len(found)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    root = x @ y.T / x.shape[1] + 1
    return root * root * root  # a power is many times slower
