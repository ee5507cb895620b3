"""The DP nearest-neighbour histogram (Lin et al., Alg. 2): PE's only touch of private images."""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch

from models.neighbours import CPU, NeighbourBackend, nearest
from privacy.mechanisms import DiscreteGaussian, Gaussian, Unit
from privacy.noise import NoiseStream


class VoteNoise(Enum):
    discrete_gaussian = "discrete_gaussian"  # integers: no floating-point attack
    gaussian = "gaussian"  # the paper's

    def mechanism(self, noise_multiplier: float, unit: Unit = Unit.image) -> DiscreteGaussian | Gaussian:
        """As it is accounted for. A user's vote has 2^20 parts, and may be divided between bins. Discrete noise on integers as
        fine as those has the Rényi divergences of continuous noise at most (Canonne, Kamath & Steinke 2020, Thm. 4), and its
        privacy loss is the same function of the answer, on a grid of 1/(2^20 σ²): finer than what accountants round up by.
        """
        whole = self is VoteNoise.discrete_gaussian and unit is Unit.image
        return DiscreteGaussian(noise_multiplier) if whole else Gaussian(noise_multiplier)


def count_votes(
    private: np.ndarray,
    private_labels: np.ndarray,
    points: np.ndarray,
    labels: np.ndarray,
    backend: NeighbourBackend,
    whole_shares: np.ndarray | None = None,
    device: torch.device = CPU,
) -> np.ndarray:
    """Each private embedding votes for the nearest point of its own class: int64 [len(points)]. Not yet private.

    One image has one vote, so adding or removing it moves one bin by 1 (sensitivity 1, for all classes together). Where a user is
    the unit, images have `whole_shares` int64 [N] of their user's parts: these move all bins together by `SampleSet.parts` at
    most. An image whose class has no point, or whose embedding is not finite, votes for nothing: to stop the run would show it.
    """
    votes = np.zeros(len(points), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        ours = private_labels == label
        winners = nearest(private[ours], points[mine], backend, device)
        found, shares = winners >= 0, None if whole_shares is None else whole_shares[ours]
        counts = np.bincount(winners[found], None if shares is None else shares[found], minlength=len(mine))
        votes[mine] += counts.astype(np.int64)  # exact: whole numbers below 2^53
    return votes


def noisy_votes(votes: np.ndarray, kind: VoteNoise, sigma: float, noise: NoiseStream, parts: int = 1) -> np.ndarray:
    """Votes in so many parts, plus noise of standard deviation `sigma` votes on every bin: float64 in votes, now private."""
    draw = noise.discrete_gaussian if kind is VoteNoise.discrete_gaussian else noise.gaussian
    return (votes + draw(sigma * parts, len(votes)).astype(np.float64)) / parts


def threshold_votes(votes: np.ndarray, threshold: float) -> np.ndarray:
    """max(h - H, 0) (Alg. 2, line 6)."""
    return np.maximum(votes - threshold, 0)
