"""The Fréchet distance between two sets of images in a named feature space.

Only in Inception's pool3 space is it called FID; elsewhere the space is in the number's name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VALUES = 1 << 23  # of the features held at once in float64: 64 MiB


@dataclass
class Gaussian:
    """Of `count` images: mean float64 [D], unbiased covariance float64 [D, D]."""

    count: int
    mean: np.ndarray
    covariance: np.ndarray


def fit_gaussian(features: np.ndarray, rows: np.ndarray | None = None) -> Gaussian:
    """To float features [N, D], or to these rows of them; 2 or more. In float64, block by block."""
    rows = np.arange(len(features)) if rows is None else rows
    if len(rows) < 2:
        raise ValueError(f"a covariance needs 2 or more images, not {len(rows)}")
    dim = features.shape[1]
    at_once = max(1, VALUES // dim)
    blocks = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    mean = sum((features[block].sum(0, dtype=np.float64) for block in blocks), np.zeros(dim)) / len(rows)
    scatter = np.zeros((dim, dim))
    for block in blocks:
        centred = features[block] - mean  # float64
        scatter += centred.T @ centred
    return Gaussian(len(rows), mean, scatter / (len(rows) - 1))


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu_a - mu_b|² + tr(S_a + S_b - 2 (S_a S_b)^½) (Dowson & Landau 1982; Heusel et al. 2017)."""
    values, vectors = np.linalg.eigh(a.covariance)
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ b.covariance @ root_a), 0)).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(0.0, float(distance))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of Gaussians fitted to float features [N, D] and [M, D], N, M >= 2."""
    return gaussian_distance(fit_gaussian(a), fit_gaussian(b))
