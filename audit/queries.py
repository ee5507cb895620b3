"""Methods of Gaussian queries audited by a game: many times the mechanism, half of them with one planted image, told apart along
what it adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audit.planted import Planted, games, of_users, patterns
from data.dataset import Dataset
from data.queries import Query
from data.samples import SampleSet
from method import Method
from models.public.settings import PublicModel
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.noise import NoiseSource


def asks_alone(method: Method) -> bool:
    """Whether Gaussian queries are all that it asks."""
    return type(method).measurement is not Method.measurement


def play_queries(
    method: Method,
    dataset: Dataset,
    model: PublicModel,
    privacy: Privacy,
    repetitions: int,
    noise: NoiseSource,
    folder: Path,
    seed: int,
    each: int | None = None,
) -> Iterator[tuple[float, bool, Ledger]]:
    """Every other time with the planted image, or user with `each` images: yields its score, whether it was in, and the ledger.

    The score is the logarithm of the likelihood ratio of all noisy answers, the best there is: along what the image adds to each,
    less the sums of the other private images. The image is black, white or of random pixels, whichever changes them most.
    """
    private = dataset.private()
    shape, classes = private.images.shape[1:], private.num_classes if method.conditional else 1
    kinds = patterns(1, shape, seed), np.zeros((1, *shape), np.uint8), np.full((1, *shape), 255, np.uint8)
    canaries = [
        of_users(np.repeat(image, each or 1, 0), np.zeros(each or 1, np.int64), private.num_classes, each) for image in kinds
    ]
    plan = Plan.make(method, Planted.of(dataset, canaries[0], np.ones(1, bool)), privacy)
    whole = plan.noise_multiplier
    assert whole is not None
    measured = method.measurement(dataset, model, classes, private.num_units + 1, whole, seed)
    assert measured is not None

    def distance(canary: SampleSet) -> float:
        """Between the answers with it and without it, in standard deviations of their noise, where there is none."""
        squares = 0.0

        def ask(query: Query, sigma: float) -> np.ndarray:
            nonlocal squares
            squares += float((query.exact(canary) ** 2).sum()) / sigma**2
            return query.exact(private)

        measured(ask)
        return squares

    def game(start: Session) -> float:
        score = 0.0

        def ask(query: Query, sigma: float) -> np.ndarray:
            nonlocal score
            seen = start.run.asking(start.private)(query, sigma)
            score += log_likelihood_ratio(seen - query.exact(private), query.exact(canary))
            return seen

        measured(ask)
        return score

    canary = max(canaries, key=distance)
    for inside, start in games(dataset, canary, privacy, plan, repetitions, noise, folder, seed):
        yield game(start), inside, start.ledger


def log_likelihood_ratio(seen: np.ndarray, added: np.ndarray) -> float:
    """Of "the planted image is in" to "it is not", for an answer less the sums of the others, `seen`, and what the image adds.

    The variance of the noise is estimated from `seen` itself, from what is at right angles to `added`.
    """
    along = float((seen * added).sum())
    length = max(float((added**2).sum()), 1e-300)
    variance = max((float((seen**2).sum()) - along**2 / length) / (seen.size - 1), 1e-300)
    return (along - length / 2) / variance
