"""Counts, means and second moments of all groups of images under one Gaussian mechanism.

An image of the group g (its class, or a cell of it) with the vector z, ‖z‖ ≤ 1, adds to the sums of its group

    (a, b z, c svec(z zᵀ))

where svec keeps the upper triangle, entries off the diagonal times √2, so that ‖svec(z zᵀ)‖ = ‖z zᵀ‖_F = ‖z‖². So what one
image adds has the norm √(a² + b² ‖z‖² + c² ‖z‖⁴) ≤ √(a² + b² + c²) = 1 at most, whatever it shows. It adds it to one group
alone: the sums of all groups, taken as one vector, have L2 sensitivity 1 under adding or removing one image, and one noise of
standard deviation σ on every entry is one Gaussian mechanism of noise multiplier σ.

Where a user is the unit, what an image adds is weighed by one over the number of its user's images: together they add a mean of
vectors of norm 1 at most, which is no longer, in whichever groups they lie.

Where images lie, and how far from there, is a smaller question of the same kind: an image adds √½ (z, ‖z‖²), whose norm
is √(½ ‖z‖² + ½ ‖z‖⁴) ≤ 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BELOW_ONE = 1 - 1e-9  # float64 rounds: what one image adds stays below 1 all the same


@dataclass(frozen=True)
class Weights:
    """a, b and c: how much of what an image adds is its count, its mean and its second moment; their squares sum to 1."""

    count: float
    mean: float
    square: float

    @classmethod
    def of(cls, count: float, mean: float, square: float) -> Weights:
        """In these proportions."""
        norm = (count**2 + mean**2 + square**2) ** 0.5
        return cls(count / norm, mean / norm, square / norm)


@dataclass(frozen=True)
class Sums:
    """Of each of G groups; noisy, unless somebody asked for no noise. `sigma` is the standard deviation of the noise."""

    counts: np.ndarray  # float64 [G]
    means: np.ndarray  # float64 [G, d]: of vectors, not divided
    squares: np.ndarray  # float64 [G, d (d + 1) / 2]: of svec(z zᵀ)
    weights: Weights
    sigma: float

    def count_noise(self) -> float:
        """The standard deviation of a count."""
        return self.sigma / self.weights.count


def no_sums(num_groups: int, size: int) -> np.ndarray:
    """Of no image: zeros [G, 1 + d + d (d + 1) / 2]."""
    return np.zeros((num_groups, 1 + size + size * (size + 1) // 2))


def weighted_sums(
    z: np.ndarray, groups: np.ndarray, num_groups: int, weights: Weights, shares: np.ndarray | None = None
) -> np.ndarray:
    """What the mechanism adds noise to: float64 [G, 1 + d + d (d + 1) / 2] of vectors [N, d], norm at most 1, and groups [N].

    `shares` float64 [N]: what an image is of its unit; None: all of it.
    """
    size = z.shape[1]
    out = no_sums(num_groups, size)
    for group in range(num_groups):
        mine = z[groups == group]
        part = np.ones(len(mine)) if shares is None else shares[groups == group]
        weighed = mine * part[:, None]
        out[group, 0] = weights.count * part.sum()
        out[group, 1 : 1 + size] = weights.mean * weighed.sum(0)
        out[group, 1 + size :] = weights.square * svec(weighed.T @ mine)
    return out * _BELOW_ONE


def unweighted(sums: np.ndarray, size: int, weights: Weights, sigma: float) -> Sums:
    """The sums as `weighted_sums` gives them, with noise of `sigma` on them, in their own units."""
    sums = sums / _BELOW_ONE
    squares = sums[:, 1 + size :] / weights.square if weights.square else np.zeros_like(sums[:, 1 + size :])
    return Sums(sums[:, 0] / weights.count, sums[:, 1 : 1 + size] / weights.mean, squares, weights, sigma / _BELOW_ONE)


def location_sums(z: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """What the mechanism of the smaller question adds noise to: float64 [d + 1] of vectors [N, d], norm at most 1."""
    part = np.ones(len(z)) if shares is None else shares
    return np.append((z * part[:, None]).sum(0), ((z**2).sum(1) * part).sum()) * (0.5**0.5 * _BELOW_ONE)


def location(sums: np.ndarray, total: int, sigma: float) -> tuple[np.ndarray, float]:
    """Of `total` vectors, from their noisy `location_sums`: their mean, float64 [d], or what the noise leaves of it, and the root
    of their mean squared distance from there; of the latter what it is at most, give or take two standard deviations."""
    scale = 0.5**0.5 * _BELOW_ONE * total
    mean, energy, noise = sums[:-1] / scale, float(sums[-1]) / scale, sigma / scale
    size, seen = len(mean), float(mean @ mean)
    true = max(seen - size * noise**2, 0.0)  # noise alone makes the rest
    left = true / max(seen, 1e-300)
    apart = energy - left * true
    doubt = noise * float(np.sqrt(1 + 4 * true + 2 * size * noise**2))
    return left * mean, float(np.sqrt(np.clip(apart + 2 * doubt, 0.0, 4.0)))


def svec(matrix: np.ndarray) -> np.ndarray:
    """The upper triangle of symmetric [..., d, d], entries off the diagonal times √2: [..., d (d + 1) / 2], of the same norm."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return matrix[..., rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2))


def smat(vector: np.ndarray, size: int) -> np.ndarray:
    """The other way: symmetric [..., d, d]."""
    rows, columns = np.triu_indices(size)
    out = np.zeros((*vector.shape[:-1], size, size))
    out[..., rows, columns] = out[..., columns, rows] = vector / np.where(rows == columns, 1.0, np.sqrt(2))
    return out
