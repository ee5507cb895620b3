"""Private Evolution audited by a game: many runs, half of them with one planted image, told apart by their noisy votes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from audit.planted import Planted, games, of_users, patterns
from data.dataset import Dataset
from data.images import conform
from data.samples import SampleSet
from models.api import ImageAPI
from models.public.settings import PublicModel
from pe.evolution import PrivateEvolution
from pe.histogram import count_votes
from pipeline.plan import Plan
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from tracking.progress import console


class WatchedEvolution(PrivateEvolution):
    """Private Evolution that keeps what a round shows: points voted for, their classes, noisy votes."""

    def watch(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        self.seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        return self.seen

    def look_ahead(self, *args: Any) -> np.ndarray:
        self.points = super().look_ahead(*args)
        return self.points

    def vote(self, population: SampleSet, *args: Any) -> np.ndarray:
        votes = super().vote(population, *args)
        self.seen.append((self.points, population.labels, votes))
        return votes


class Remembered:
    """An image API that keeps its answers, as far as `room` bytes go: what is public is mostly the same in every repetition."""

    def __init__(self, api: ImageAPI, room: int = 1 << 28):
        self.num_labels, self._api, self._room = api.num_labels, api, room
        self._known: dict[tuple, np.ndarray] = {}

    def random(self, labels: np.ndarray, **call: Any) -> np.ndarray:
        return self._once((labels.tobytes(), call["stream"]), lambda: self._api.random(labels, **call))

    def variation(self, images: np.ndarray, labels: np.ndarray, degree: float, **call: Any) -> np.ndarray:
        asked = images.tobytes(), labels.tobytes(), degree, call["stream"], call.get("respacing")
        return self._once(asked, lambda: self._api.variation(images, labels, degree, **call))

    def _once(self, asked: tuple, make: Callable[[], np.ndarray]) -> np.ndarray:
        if asked in self._known:
            return self._known[asked]
        images = make()
        self._room -= 2 * images.nbytes
        if self._room >= 0:
            self._known[asked] = images
        return images


def play(
    method: PrivateEvolution,
    dataset: Dataset,
    model: PublicModel,
    image_shape: tuple[int, int, int],
    privacy: Privacy,
    repetitions: int,
    noise: NoiseSource,
    folder: Path,
    seed: int,
    each: int | None = None,
) -> Iterator[tuple[float, bool, Ledger]]:
    """Whole evolutions, every other one with a planted image, or user with `each` images: yields its score, whether it was in,
    and the ledger.

    `image_shape`: (H, W, C) of the model's images. The score is the votes of the bins that the planted image would vote for, less
    those of the other private images, which the adversary can count.
    """
    watched = WatchedEvolution(**vars(method))
    embedding, private = model.embeddings[method.embedding], dataset.private()
    images = np.repeat(patterns(1, private.images.shape[1:], seed), each or 1, 0)
    canary = of_users(images, np.zeros(len(images), np.int64), private.num_classes, each)
    plan = Plan.make(method, Planted.of(dataset, canary, np.ones(1, bool)), privacy)
    api = Remembered(model.api)

    def voters(samples: SampleSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        there = embedding.embed(conform(samples.images, image_shape))
        return there, samples.labels if method.conditional else np.zeros_like(samples.labels), samples.whole_shares

    planted, others = voters(canary), voters(private)
    for inside, start in games(dataset, canary, privacy, plan, repetitions, noise, folder, seed):
        with _quiet():
            sizes, seen = method.class_sizes(start.private, start.run), watched.watch()
            for _ in watched.evolve(start.private, api, embedding, np.repeat(np.arange(len(sizes)), sizes), start.run):
                pass
        score = 0.0
        for points, labels, votes in seen:
            its, known = (
                count_votes(there, classes, points, labels, method.neighbours, shares) / private.parts
                for there, classes, shares in (planted, others)
            )
            score += float(its @ (votes - known))
        yield score, inside, start.ledger


@contextmanager
def _quiet() -> Iterator[None]:
    """A thousand runs would each say that they are done."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
