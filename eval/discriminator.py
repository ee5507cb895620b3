"""Have the samples moved from the public images to the private ones? Ask a network that tells the two apart.

Ghalebikesabi et al. (2023), §5.5 and Figure 11a. It is trained on real images without privacy: its numbers are internal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from data.samples import SampleSet
from errors import require
from eval.downstream import split
from eval.evaluator import Cost, EvaluationContext, Evaluator
from models.classifiers.networks import ClassifierName
from models.classifiers.training import Recipe, accuracy, logits, train
from models.features.spaces import Spaces
from models.public.settings import Model
from models.seeds import numpy_rng
from tracking.progress import progress

PUBLIC, PRIVATE = 0, 1


@dataclass(kw_only=True)
class Discriminator(Recipe, Evaluator):
    """The share of the samples that a classifier takes for private images rather than public ones."""

    enabled: bool = False
    classifier: ClassifierName = ClassifierName.resnet18
    holdout: float = 0.2  # share of the real images that the classifier itself is tested on

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        self.check_recipe(key)
        require(0 < self.holdout < 1, f"{key}.holdout", self.holdout, "above 0 and below 1")
        require(dataset.num_public > 0, f"{key}.enabled", "true", f"false, as dataset={dataset.name} has no public images")

    def prepare(self, dataset: Dataset) -> None:
        dataset.some_public()

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        flops, kept = self.step_cost(dataset.shape, 2)
        each, images = flops / (3 * self.batch_size * self.augmult), 2 * min(dataset.num_train, dataset.num_public)
        return Cost(
            flops * self.steps + each * (num_samples + self.holdout * images),
            kept + 2 * dataset.num_public * math.prod(dataset.shape),
        )

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        learned, held = split(public_and_private(context), self.holdout)
        with progress(f"{self.classifier.title} tells private from public", self.steps) as advance:
            network = train(learned, self, seed=context.seed, device=context.device, advance=advance, stream="eval/discriminator")
        yield "discriminator/accuracy", accuracy(network, held, context.device)
        judged = logits(network, context.samples, context.device).argmax(1) == PRIVATE
        yield "discriminator/private_like", float(judged.mean())
        if context.samples.num_classes > 1:
            for label, name in enumerate(context.dataset.classes):
                mine = context.samples.labels == label
                if mine.any():
                    yield f"discriminator/private_like/class={name}", float(judged[mine].mean())


def public_and_private(context: EvaluationContext) -> SampleSet:
    """As many public images, label 0, as private ones, label 1: those of the larger set are drawn."""
    both = [context.public.images, context.train.images]
    size, rng = min(len(images) for images in both), numpy_rng(context.seed, "eval/discriminator/rows")
    images = [images[np.sort(rng.permutation(len(images))[:size])] for images in both]
    return SampleSet(np.concatenate(images), np.repeat([PUBLIC, PRIVATE], size).astype(np.int64), 2)
