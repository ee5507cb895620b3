"""Evaluators that compare samples and real images in a feature space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data.dataset import Dataset
from eval.evaluator import Cost, InFeatureSpace, Subject
from eval.frechet import frechet_distance
from models.config import Model


@dataclass(kw_only=True)
class Frechet(InFeatureSpace):
    """Fréchet distance to the real images of one split, in the space of the public feature extractor: not FID."""

    def cost(self, dataset: Dataset, model: Model, num_samples: int) -> Cost:
        cost, (_, dim) = self.feature_cost(dataset, model, num_samples), model.embedding_cost(self.embedding, dataset.shape)
        return Cost(cost.flops + 30 * dim**3, cost.bytes + 5 * 8 * dim**2)

    def evaluate(self, subject: Subject) -> Iterator[tuple[str, float]]:
        samples, real = subject.features(self.embedding), subject.features(self.embedding, self.reference)
        yield f"frechet/{self.space}", frechet_distance(samples, real)
