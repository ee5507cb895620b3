"""Something to judge: flat images of colours that tell private, test and generated ones apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import ClassCounts, Dataset
from data.samples import SampleSet
from eval.evaluator import EvaluationContext
from models.features.extractors import Pixels
from models.features.spaces import EmbeddingName, Embeddings

PRIVATE, TEST, SAMPLE = 0, 1, 2  # the channel in which images of a kind are bright


def flat(channel: int, count: int, classes: int = 2, side: int = 8) -> SampleSet:
    """Image i has level 100 + i in its kind's channel, and none in the others."""
    images = np.zeros((count, side, side, 3), np.uint8)
    images[..., channel] = (100 + np.arange(count) % 150)[:, None, None]
    return SampleSet(images, np.arange(count) % classes, classes)


@dataclass(kw_only=True)
class World(Dataset):
    name: str = "world"
    class_counts: ClassCounts = ClassCounts.uniform
    given: SampleSet
    held_out: SampleSet

    @property
    def num_train(self) -> int:
        return len(self.given)

    @property
    def num_test(self) -> int:
        return len(self.held_out)

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.given.images.shape[1:]
        return height, width, channels

    @property
    def classes(self) -> list[str]:
        return [f"kind {label}" for label in range(self.given.num_classes)]

    def train(self) -> SampleSet:
        return self.given

    def test(self) -> SampleSet:
        return self.held_out


def context(figures: Path, samples: SampleSet, private: SampleSet, test: SampleSet, **settings: Any) -> EvaluationContext:
    dataset = World(given=private, held_out=test, fraction=settings.pop("fraction", 1.0))
    return EvaluationContext(samples, dataset, Embeddings(lambda name: Pixels()), torch.device("cpu"), 0, figures, **settings)


PIXELS = EmbeddingName.pixels
