"""What the conformance suites share: a small private dataset of grey images, and a public model of as many labels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.dataset import ClassCounts, Dataset
from data.samples import SampleSet
from models.diffusion.model import DiffusionModel
from models.diffusion.schedules import SCHEDULES
from models.features.extractors import Pixels
from models.features.spaces import EmbeddingName, Embeddings
from models.public.settings import Model, PublicModel
from tests.command import composed_model
from tests.toy import tiny_unet

SIDE, CLASSES = 8, 3


def api_of(model: PublicModel) -> Any:
    """What generates its images."""
    return model.api


@functools.cache
def model_settings() -> Model:
    """Of the embedded model, whose images and labels are those of `tiny_model` and `Grey`: for checks and plans."""
    return composed_model("model=digits_unet")


def tiny_model(seed: int = 0) -> tuple[PublicModel, set[EmbeddingName]]:
    """A new one, as methods train it in place; and the embeddings that it is asked for."""
    asked: set[EmbeddingName] = set()

    def embedding(name: EmbeddingName) -> Pixels:
        asked.add(name)
        return Pixels()

    generator = DiffusionModel(tiny_unet(), SCHEDULES["linear"](100), num_labels=10, respacing="3", seed=seed)
    return PublicModel("tiny", generator, Embeddings(embedding)), asked


@dataclass(kw_only=True)
class Grey(Dataset):
    """Images of noise around a level that tells their class; nothing may open the `count` private ones where `closed`."""

    name: str = "grey"
    class_counts: ClassCounts = ClassCounts.uniform
    count: int = 48
    held_out: int = 0
    public_count: int = 0
    closed: bool = False

    @property
    def num_train(self) -> int:
        return self.count

    @property
    def num_test(self) -> int:
        return self.held_out

    @property
    def num_public(self) -> int:
        return self.public_count

    @property
    def shape(self) -> tuple[int, int, int]:
        return (SIDE, SIDE, 1)

    @property
    def all_classes(self) -> list[str]:
        return [f"level {label}" for label in range(CLASSES)]

    def train(self) -> SampleSet:
        assert not self.closed, "private images were opened"
        return grey(self.count, first=0)

    def test(self) -> SampleSet:
        return grey(self.held_out, first=1000)

    def public(self) -> SampleSet:
        return grey(self.public_count, first=2000)


def grey(count: int, first: int) -> SampleSet:
    """Image i is the same whatever their number."""
    labels = np.arange(count) % CLASSES
    noise = np.zeros((count, SIDE, SIDE, 1), np.int64)
    for i in range(count):
        noise[i] = np.random.default_rng(first + i).integers(0, 60, (SIDE, SIDE, 1))
    return SampleSet((noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels, CLASSES)
