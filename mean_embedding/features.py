"""Feature maps φ of images, ‖φ(x)‖ ≤ 1, and the mean embedding of private images under one Gaussian mechanism.

An image x of class y adds to the row of its class, of sums [K, 1 + D],

    (a, b φ(x)),  a² + b² = 1

and nothing to the other rows: this is φ(x) ⊗ onehot(y) (Harder et al. 2021), with a count beside it. Whatever it shows,
`FeatureMap.of_images` gives a finite φ(x) of norm at most 1, so that what it adds has the norm √(a² + b² ‖φ(x)‖²) ≤ 1. So all
sums, taken as one vector, have L2 sensitivity 1 under adding or removing one image, and one noise of standard deviation σ on
every entry is one Gaussian mechanism of noise multiplier σ. The divisor of the mean is the public number of images, N.

Where a user is the unit, what an image adds is weighed by one over the number of its user's images: together they add a mean of
vectors of norm 1 at most, which is no longer, in whichever rows they lie.

Two embeddings that are released together, as DP-MEPF's first and second moments, are parts of one φ: (√(1-s) φ₁, √s φ₂) has norm
at most 1 where each has. This is what two mechanisms of noise multipliers σ/√(1-s) and σ/√s are together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.dataset import Dataset
from data.images import to_network
from data.samples import SampleSet
from errors import reject_unless
from models.api import Perceives
from models.seeds import numpy_rng

COUNT = 0.1  # a
EMBEDDED = math.sqrt(1 - COUNT**2)  # b
PIXEL_DISTANCE = 0.35  # between images, over the root of the number of pixels 0 … 1: of printed digits, a public constant
_BELOW_ONE = 1 - 1e-9  # float64 rounds: what one image adds stays below 1 all the same
PASS_ROWS = 64  # images at a time
_PUBLIC = 1000  # images whose distances are taken


@dataclass(frozen=True)
class FeatureMap(ABC):
    """φ, of what a public embedding makes of images of `shape`."""

    embedding: Perceives
    shape: tuple[int, int, int]

    @abstractmethod
    def of_vectors(self, v: torch.Tensor) -> torch.Tensor:
        """Float [N, d] to [N, D], of norm 1 up to rounding (0 where there is nothing), with gradients."""

    @cached_property
    def size(self) -> int:
        """D"""
        return self.of_images(np.zeros((1, *self.shape), np.uint8)).shape[1]

    def of_batch(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] in [-1, 1] to float32 [N, D], with gradients."""
        return self.of_vectors(self.embedding.perceive(x))

    def of_images(self, images: np.ndarray) -> np.ndarray:
        """At most `PASS_ROWS` images, uint8 [N, *shape], to float64 [N, D]: finite, and of norm at most 1, for every input."""
        batch = np.zeros((PASS_ROWS, *self.shape), np.uint8)  # always as many rows: rounding depends on it
        batch[: len(images)] = images
        with torch.no_grad():
            v = self.embedding.perceive(to_network(batch, self.embedding.device)).double()
            phi = self.of_vectors(v)[: len(images)].cpu().numpy()
        phi[~np.isfinite(phi).all(1)] = 0.0  # no noise hides what is not a number
        return phi / np.maximum(1.0, np.linalg.norm(phi, axis=1, keepdims=True))


@dataclass(frozen=True)
class FourierFeatures(FeatureMap):
    """√(2/D) (cos Wv, sin Wv), of norm 1: their products are a mean of Gaussian kernels (Rahimi & Recht 2007)."""

    frequencies: torch.Tensor  # W, float32 [D/2, d], on the device of the embedding

    def of_vectors(self, v: torch.Tensor) -> torch.Tensor:
        angles = v @ self.frequencies.to(v).T  # [N, D/2]
        return torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(len(self.frequencies))


@dataclass(frozen=True)
class PerceptualMoments(FeatureMap):
    """(√(1-s) v/‖v‖, √s v²/‖v²‖), v² entry by entry: first and second moments (Harder et al. 2023)."""

    square_share: float  # s

    def of_vectors(self, v: torch.Tensor) -> torch.Tensor:
        s, square = self.square_share, v * v
        first, second = (
            x * (share**0.5 / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12))
            for x, share in ((v, 1 - s), (square, s))
        )
        return torch.cat([first, second], 1)  # [N, 2d]


def fourier_features(
    embedding: Perceives, shape: tuple[int, int, int], size: int, scales: Sequence[float], seed: int
) -> FourierFeatures:
    """`size` features of a sum of Gaussian kernels on pixels 0 … 1: the mean, over `scales`, of exp(-‖x - x'‖² / (2 scale²)).

    Such mixtures are those of Li, Swersky & Zemel (2015). Every scale has an equal share of the frequencies, up to one. The
    frequencies are public, as `seed` is.
    """
    drawn = numpy_rng(seed, "mean_embedding/frequencies").standard_normal((size // 2, math.prod(shape)))
    drawn /= np.resize(scales, len(drawn))[:, None]
    return FourierFeatures(embedding, shape, torch.from_numpy(drawn.astype(np.float32)).to(embedding.device))


def usual_distance(dataset: Dataset, seed: int) -> float:
    """The median distance between public images, pixels being 0 … 1; without any, that of images of this size as a constant."""
    if dataset.num_public == 0:
        return PIXEL_DISTANCE * math.sqrt(math.prod(dataset.shape))
    from scipy.spatial.distance import pdist

    images = dataset.some_public().images
    rows = numpy_rng(seed, "mean_embedding/public").permutation(len(images))[:_PUBLIC]
    chosen = images[np.sort(rows)].reshape(len(rows), -1) / 255.0
    median = float(np.median(pdist(chosen))) if len(chosen) > 1 else 0.0
    reject_unless(median > 0, "dataset", dataset.name, "its public images are all alike; set method.length_scale")
    return median


def exact_sums(features: FeatureMap, samples: SampleSet, classes: int) -> np.ndarray:
    """What the mechanism adds noise to: float64 [K, 1 + D]; `classes` 1: whatever the labels are."""
    labels = samples.labels if classes > 1 else np.zeros_like(samples.labels)
    sums, shares = np.zeros((classes, 1 + features.size)), samples.shares()
    for start in range(0, len(samples), PASS_ROWS):
        rows = slice(start, start + PASS_ROWS)
        phi = features.of_images(samples.images[rows])  # [n, D]
        owner = np.zeros((classes, len(phi)))
        owner[labels[rows], np.arange(len(phi))] = shares[rows]
        sums[:, 0] += COUNT * owner.sum(1)
        sums[:, 1:] += EMBEDDED * (owner @ phi)
    return sums * _BELOW_ONE


@dataclass(frozen=True)
class MeanEmbedding:
    """What noisy sums say of N images: the number of each class, and of each class the mean of φ over all N."""

    counts: np.ndarray  # float64 [K], with noise
    means: np.ndarray  # float64 [K, D], with noise
    noise: float  # standard deviation of a count

    @classmethod
    def of(cls, sums: np.ndarray, size: int, sigma: float) -> MeanEmbedding:
        """`size`: N, which is public."""
        counts, means = sums[:, 0] / (COUNT * _BELOW_ONE), sums[:, 1:] / (EMBEDDED * _BELOW_ONE * size)
        return cls(counts, means, sigma / (COUNT * _BELOW_ONE))
