"""DP moments audited by a game: many times the mechanism, half of them with one planted image, told apart along what it adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audit.planted import Planted, games, patterns
from data.dataset import Dataset
from data.samples import SampleSet
from moments.measure import cells, exact_sums, noisy_sums, space_of, weights
from moments.method import DPMoments
from pipeline.plan import Plan
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.noise import NoiseSource


def play_moments(
    method: DPMoments, dataset: Dataset, privacy: Privacy, repetitions: int, noise: NoiseSource, folder: Path, seed: int
) -> Iterator[tuple[float, bool, Ledger]]:
    """Every other time with the planted image: yields its score, whether it was in, and the ledger.

    The score is the noisy sums, less those of the other private images, along what the image adds: the best there is against
    noise that is the same in all directions. The image is of random pixels; what it adds may be shorter than the bound (0.5 to 1
    of it on the digits), and the audit sees so much less.
    """
    private = dataset.private()
    canary = SampleSet(patterns(1, private.images.shape[1:], seed), np.zeros(1, np.int64), private.num_classes)
    plan = Plan.make(method, Planted.of(dataset, canary, np.ones(1, bool)), privacy)
    sigma = plan.noise_multiplier
    assert sigma is not None
    size, classes = len(private) + 1, private.num_classes if method.conditional else 1
    space = space_of(method, dataset, classes, method.conditional, seed, cells(size, classes, sigma))
    parts = weights(size, space.groups, sigma, space.public is not None, method.square_weight)
    added, known = (exact_sums(space, parts, samples, method.conditional) for samples in (canary, private))
    for inside, start in games(dataset, canary, privacy, plan, repetitions, noise, folder, seed):
        seen = noisy_sums(space, parts, start.private, start.run, sigma, method.conditional)
        yield float(((seen - known) * added).sum()), inside, start.ledger
