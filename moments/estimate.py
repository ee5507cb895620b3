"""From noisy sums to the means and covariances of all groups. Only the sums are private, and they are noisy: nothing is spent.

Counts and means are empirical Bayes: a group's mean is a multiple of the public one plus a deviation of unknown size. Both are
read off the noisy means, in blocks of coordinates of like public variance: the multiple by least squares, the deviation's size by
what the noise, whose variance is known, leaves of the residual (Efron & Morris 1973, §2); first for the average of all groups,
whose noise is smaller, then for what each deviates from it by.

Covariances are the noisy ones without the small eigenvalues, which are noise. To shrink them towards public ones, as the means
are, brings them closer in the Fréchet distance and teaches a classifier less: see docs/moments.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moments.mechanism import Sums, smat

Block = np.ndarray  # int64: some entries of a statistic


@dataclass(frozen=True)
class Gaussians:
    """A normal distribution for each of G groups, in the space of the basis, and how many images each stands for."""

    counts: np.ndarray  # float64 [G], positive
    means: np.ndarray  # float64 [G, d]
    covariances: np.ndarray  # float64 [G, d, d], positive semidefinite

    def draw(self, group: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """float64 [count, d]"""
        values, vectors = np.linalg.eigh(self.covariances[group])
        root = vectors * np.sqrt(values.clip(0))
        return self.means[group] + rng.standard_normal((count, len(values))) @ root.T


def empirical(z: np.ndarray, groups: np.ndarray, num_groups: int) -> Gaussians:
    """Of vectors [N, d] without noise, such as public ones; a group of none is like all of them together."""
    means, covariances, counts = [], [], []
    for group in range(num_groups):
        mine = z[groups == group]
        counts.append(len(mine))
        mine = mine if len(mine) > 1 else z
        means.append(mine.mean(0))
        covariances.append(np.cov(mine.T, bias=True).reshape(z.shape[1], z.shape[1]))
    return Gaussians(np.array(counts, float), np.array(means), np.array(covariances))


def estimate(sums: Sums, total: int, prior: Gaussians | None) -> Gaussians:
    """`total` images, which is public, of which the sums are; `prior`: the same groups of public images."""
    size = sums.means.shape[1]
    counts = positive_counts(sums.counts, sums.count_noise(), total, None if prior is None else prior.counts)
    known_means = np.zeros_like(sums.means) if prior is None else prior.means
    spread = np.ones(size) if prior is None else np.einsum("gii->i", prior.covariances)
    levels = _levels(spread)

    alike = [np.flatnonzero(levels == level) for level in np.unique(levels)]
    noise = sums.sigma / sums.weights.mean / counts
    means = np.add(*_posterior(sums.means / counts[:, None], known_means, noise**2, alike, counts))
    if not sums.weights.square:
        assert prior is not None
        return Gaussians(counts, means, prior.covariances)
    squares = smat(sums.squares, size) / counts[:, None, None]
    deviation = sums.sigma / sums.weights.square / counts
    return Gaussians(counts, means, _cut(squares - means[:, :, None] * means[:, None, :], deviation))


def positive_counts(noisy: np.ndarray, noise: float, total: int, public: np.ndarray | None = None) -> np.ndarray:
    """Counts [G] with noise of that standard deviation, made positive and together `total`: what the noise leaves of their
    differences from equal (or the public) shares."""
    shares = np.ones(len(noisy)) if public is None else public + 1
    expected = total * shares / shares.sum()
    off = noisy - expected
    off = off - off.mean()
    variance = np.full(len(off), noise**2 * (1 - 1 / len(off)))
    counts = np.maximum(expected + _left(off, variance) * off, 0.05 * expected)
    return counts * (total / counts.sum())


def _left(residual: np.ndarray, noise: np.ndarray) -> float:
    """From 0 to 1: the share of a residual, its entries with noise of these variances, that noise alone does not explain.

    The energy of noise is counted with one standard deviation on top, so that chance makes little of nothing.
    """
    explained = float(noise.sum()) + float(np.sqrt(2 * (noise**2).sum()))
    return max(0.0, 1 - explained / max(float((residual**2).sum()), 1e-300))


def _levels(spread: np.ndarray) -> np.ndarray:
    """A number for each coordinate, equal for those of like public variance: blocks of 4, 4, 8, 16, 32, … in that order."""
    order = np.argsort(-spread, kind="stable")
    levels = np.empty(len(spread), np.int64)
    levels[order] = np.maximum(np.log2(np.maximum(np.arange(len(spread)), 1) / 4).astype(int) + 1, 0)
    levels[order[:4]] = 0
    return levels


def _posterior(
    observed: np.ndarray, known: np.ndarray, noise: np.ndarray, blocks: Sequence[Block], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of a statistic [G, m] observed with noise of variance `noise` [G], known beforehand [G, m]: the average of
    all groups, float64 [m], and what each has besides, [G, m]."""
    share = counts / counts.sum()
    together, public = share @ observed, share @ known
    pooled = _shrunk(together[None], public[None], np.array([[(share**2) @ noise]]), blocks)[0]
    return pooled, _shrunk(observed - together, known - public, noise[:, None], blocks)


def _shrunk(observed: np.ndarray, known: np.ndarray, noise: np.ndarray, blocks: Sequence[Block]) -> np.ndarray:
    """Block by block, over all rows: a multiple of `known`, and what the noise, of these variances, leaves of the rest."""
    out = np.empty_like(observed)
    for block in blocks:
        y, x, s = observed[:, block], known[:, block], np.broadcast_to(noise, observed[:, block].shape)
        energy = float((x * x).sum())
        multiple = 1.0
        if energy > 0:
            apart = np.array([(x * y).sum() / energy - 1])
            multiple = max(0.0, 1 + float(apart[0]) * _left(apart, np.array([(x * x * s).sum() / energy**2])))
        rest = y - multiple * x
        out[:, block] = multiple * x + _left(rest, s) * rest
    return out


def _cut(matrices: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Symmetric [G, d, d] without eigenvalues below half of the largest that noise alone makes.

    `deviation` [G] is that of an entry on the diagonal; the noise's eigenvalues then end at √(2d) times that (Wigner 1958).
    """
    values, vectors = np.linalg.eigh(matrices)
    least = 0.5 * np.sqrt(2 * matrices.shape[-1]) * deviation
    return (vectors * np.where(values > least[:, None], values, 0.0)[:, None, :]) @ vectors.swapaxes(-1, -2)
