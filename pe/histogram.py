"""The DP nearest-neighbour histogram (Lin et al., Alg. 2): PE's only touch of private images."""

from __future__ import annotations

from enum import Enum

import numpy as np

from models.neighbours import NeighbourBackend, nearest
from privacy.mechanisms import DiscreteGaussian, Gaussian
from privacy.noise import NoiseStream


class VoteNoise(Enum):
    discrete_gaussian = "discrete_gaussian"  # integers: no floating-point attack
    gaussian = "gaussian"  # the paper's

    def mechanism(self, noise_multiplier: float) -> DiscreteGaussian | Gaussian:
        return Gaussian(noise_multiplier) if self is VoteNoise.gaussian else DiscreteGaussian(noise_multiplier)


def count_votes(
    private: np.ndarray, private_labels: np.ndarray, points: np.ndarray, labels: np.ndarray, backend: NeighbourBackend
) -> np.ndarray:
    """Each private embedding votes for the nearest point of its own class: int64 [len(points)]. Not yet private.

    One image has one vote, so adding or removing it moves one bin by 1 (sensitivity 1, for all classes together). An
    image whose class has no point, or whose embedding is not finite, votes for nothing: to stop the run would show it.
    """
    votes = np.zeros(len(points), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        winners = nearest(private[private_labels == label], points[mine], backend)
        votes[mine] += np.bincount(winners[winners >= 0], minlength=len(mine))
    return votes


def noisy_votes(votes: np.ndarray, mechanism: DiscreteGaussian | Gaussian, noise: NoiseStream) -> np.ndarray:
    """Votes plus noise of the mechanism's standard deviation on every bin: float64, now private."""
    draw = noise.discrete_gaussian if isinstance(mechanism, DiscreteGaussian) else noise.gaussian
    return votes + draw(mechanism.noise_multiplier, len(votes)).astype(np.float64)


def threshold_votes(votes: np.ndarray, threshold: float) -> np.ndarray:
    """max(h - H, 0) (Alg. 2, line 6)."""
    return np.maximum(votes - threshold, 0)
