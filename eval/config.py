"""Which evaluators run, and what each needs. They yield `(name, value)`, know no tracker, and run after the release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import torch

from data.dataset import Dataset
from data.samples import SampleSet
from errors import require
from eval.downstream import accuracy, mean_and_spread, train_wrn
from eval.frechet import frechet_distance
from models.config import EmbeddingName, Model, PublicModel
from tracking.progress import progress


@dataclass
class Subject:
    """What is judged, and what it is judged against."""

    samples: SampleSet
    dataset: Dataset
    model: PublicModel
    device: torch.device
    seed: int


class Reference(Enum):
    train = "train"
    test = "test"


@dataclass(kw_only=True)
class Frechet:
    """Fréchet distance to the real images of one split, in the space of the public feature extractor: not FID."""

    enabled: bool = True
    embedding: EmbeddingName = EmbeddingName.public_features
    reference: Reference = Reference.train

    def check(self, dataset: Dataset, model: Model) -> None:
        allowed = f"model={model.name} has none; use pixels, or eval.frechet.enabled=false"
        require(self.embedding in model.embeddings(), "eval.frechet.embedding", self.embedding, allowed)
        same = self.embedding is not EmbeddingName.public_features or model.makes[2] == dataset.shape[2]
        allowed = f"pixels, inception or clip, as the features of model={model.name} take {model.makes[2]} channels"
        require(same, "eval.frechet.embedding", self.embedding, allowed)

    def evaluate(self, subject: Subject) -> Iterator[tuple[str, float]]:
        embed = subject.model.embeddings[self.embedding].embed
        real = subject.dataset.train() if self.reference is Reference.train else subject.dataset.test()
        distance = frechet_distance(embed(subject.samples.images), embed(real.images))
        yield f"frechet/{self.embedding.value}_{self.reference.value}", distance


@dataclass(kw_only=True)
class Downstream:
    """WRN-40-4 trained on the samples, tested on the real test split; mean and spread over `seeds` trainings."""

    enabled: bool = True
    seeds: int = 1
    steps: int = 200
    batch_size: int = 128

    def check(self, dataset: Dataset, model: Model) -> None:
        require(self.seeds >= 1, "eval.downstream.seeds", self.seeds, "1 or more")
        require(self.steps >= 1, "eval.downstream.steps", self.steps, "1 or more")
        require(self.batch_size >= 2, "eval.downstream.batch_size", self.batch_size, "2 or more")

    def evaluate(self, subject: Subject) -> Iterator[tuple[str, float]]:
        if subject.samples.num_classes < 2:
            return  # samples without classes train no classifier
        test, scores = subject.dataset.test(), []
        with progress("WRN-40-4 on the samples", self.seeds * self.steps) as advance:
            for i in range(self.seeds):
                network = train_wrn(
                    subject.samples,
                    seed=subject.seed + i,
                    steps=self.steps,
                    batch_size=self.batch_size,
                    device=subject.device,
                    advance=advance,
                )
                scores.append(accuracy(network, test, subject.device))
        mean, spread = mean_and_spread(scores)
        yield "wrn40_4/accuracy", mean
        yield "wrn40_4/accuracy_spread", spread
        yield "wrn40_4/accuracy_seeds", float(self.seeds)


@dataclass(kw_only=True)
class Evaluation:
    frechet: Frechet = field(default_factory=Frechet)
    downstream: Downstream = field(default_factory=Downstream)

    def embeddings(self) -> set[EmbeddingName]:
        return {self.frechet.embedding} if self.frechet.enabled else set()

    @property
    def evaluators(self) -> list[Frechet | Downstream]:
        return [evaluator for evaluator in (self.frechet, self.downstream) if evaluator.enabled]

    def check(self, dataset: Dataset, model: Model) -> None:
        for evaluator in self.evaluators:
            evaluator.check(dataset, model)
