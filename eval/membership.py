"""Distance-based membership inference: is a private image nearer to the samples than a test image is?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from eval.evaluator import Cost, EvaluationContext, InEmbedding, Reference
from models.features.spaces import Spaces
from models.neighbours import k_nearest
from models.public.settings import Model
from models.seeds import numpy_rng
from tracking.progress import Advance, progress

AT_ONCE = 4096  # queries between two steps of the progress bar
Z_95 = 1.959963984540054  # standard normal quantile of 97.5 %


@dataclass(kw_only=True)
class Membership(InEmbedding):
    """An attacker who sees the samples scores an image by minus its distance to the nearest one (GAN-Leaks: Chen et al. 2020).

    Members are private images, the others test images, equally many, drawn by `seed`. 0.5 is chance. It tells of
    this attack alone, and wherever test images are of another law than private ones (another hospital's) it
    differs from 0.5 without any leak.
    """

    enabled: bool = False

    @property
    def needs_test(self) -> bool:
        return True

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        flops, dim = spaces.cost(self.embedding, dataset.shape)
        images = 2 * min(dataset.num_private_images, dataset.num_test)
        return Cost((num_samples + images) * flops + 2.0 * num_samples * images * dim, 4 * (num_samples + images) * dim)

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        samples = context.features(self.embedding)
        sides = equally_many(
            context.features(self.embedding, Reference.private), context.features(self.embedding, Reference.test), context.seed
        )
        with progress("membership: nearest samples", sum(map(len, sides))) as advance:
            members, others = (-nearest_distances(side, samples, advance) for side in sides)
        area, low, high = auc(members, others)
        yield "membership/auc", area
        yield "membership/auc_low", low
        yield "membership/auc_high", high
        yield "membership/tpr_at_fpr_1pct", true_positives(members, others, 0.01)


def equally_many(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many rows of each as the smaller has, drawn without replacement."""
    rng, size = numpy_rng(seed, "eval/equally_many"), min(len(a), len(b))
    first, second = (side[np.sort(rng.permutation(len(side))[:size])] for side in (a, b))
    return first, second


def nearest_distances(queries: np.ndarray, points: np.ndarray, advance: Advance) -> np.ndarray:
    """From each query to the nearest point, float32 [M]."""
    out = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), AT_ONCE):
        part = queries[start : start + AT_ONCE]
        out[start : start + len(part)] = k_nearest(part, points, 1)[0][:, 0]
        advance(len(part))
    return out


def auc(members: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """Area under the ROC curve of scores [m >= 2] against [n >= 2], and its 95 % interval.

    The chance that a member scores higher, ties half; variance of DeLong, DeLong & Clarke-Pearson (1988), from ranks (Sun & Xu
    2014), cut to [0, 1]. Where the scores do not overlap the variance is 0, and the interval a point.
    """
    from scipy.stats import rankdata  # slow to import, and a plan has 15 seconds

    m, n = len(members), len(others)
    ranks = rankdata(np.concatenate([members, others]))
    above = (ranks[:m] - rankdata(members)) / n  # of each member: the share of others below it
    below = 1 - (ranks[m:] - rankdata(others)) / m
    area = float(above.mean())
    half = Z_95 * math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n)
    return area, max(0.0, area - half), min(1.0, area + half)


def true_positives(members: np.ndarray, others: np.ndarray, rate: float) -> float:
    """The share of members above a threshold that at most `rate` of the others are above (Carlini et al. 2022)."""
    threshold = np.sort(others)[::-1][math.floor(rate * len(others))]
    return float((members > threshold).mean())
