"""The public images of a dataset in the place of its private ones, to choose settings on: nothing of a private image is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from omegaconf import MISSING

from data.dataset import Dataset
from data.datasets.rehearsal import Rehearsal
from data.samples import SampleSet
from errors import reject_unless, require
from privacy.inherited import PublicInput
from privacy.mechanisms import Unit

_SEED = 20_261_130  # fixed: the parts are part of the definition
_MOST_TEST = 10_000


def rehearsal_of(dataset: Dataset) -> Dataset:
    """What stands in for it. Where a program draws its public images: digits of other faces, which no public model has seen."""
    require(dataset.unit is Unit.image, "privacy.unit", dataset.unit, "image for a rehearsal, as public images are nobody's")
    reject_unless(
        dataset.num_public > 0, "dataset", dataset.name, "it has no public images, which a rehearsal takes in its place"
    )
    sizes = {(8, 8, 1): 8, (28, 28, 1): 28}
    if dataset.renders_public and dataset.shape in sizes and set(dataset.classes) <= set(dataset.public_classes):
        every = round(dataset.num_private * len(dataset.public_classes) / len(dataset.classes))
        found = Rehearsal(image_size=sizes[dataset.shape], num_images=max(10, every), class_counts=dataset.class_counts)
        return replace(found, keep_classes=dataset.keep_classes)
    return Rehearsed(of=dataset, class_counts=dataset.class_counts)


@dataclass(kw_only=True)
class Rehearsed(Dataset):
    """A part of the public images is taken for private, as many as there are if half of them suffices, another for the test."""

    name: str = "rehearsed"
    of: Dataset = MISSING

    @property
    def num_train(self) -> int:
        return min(self.of.num_private, self.of.num_public // 2)

    @property
    def num_test(self) -> int:
        return min(_MOST_TEST, self.of.num_public // 5)

    @property
    def num_public(self) -> int:
        return self.of.num_public - self.num_train - self.num_test

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.of.shape

    @property
    def features(self) -> str | None:
        return self.of.features

    @property
    def all_classes(self) -> list[str]:
        return self.of.public_classes

    @property
    def renders_public(self) -> bool:
        return self.of.renders_public

    def check(self) -> None:
        super().check()
        self.of.check()
        reject_unless(self.num_test >= 1, "dataset", self.of.name, f"a rehearsal needs 5 public images, of {self.of.num_public}")

    def prepare(self) -> None:
        self.of.prepare()

    def public_inputs(self) -> list[PublicInput]:
        return self.of.public_inputs()  # whatever has been spent on the images stays spent

    def train(self) -> SampleSet:
        return self._parts[0]

    def test(self) -> SampleSet:
        return self._parts[1]

    def public(self) -> SampleSet:
        return self._parts[2]

    @cached_property
    def _parts(self) -> list[SampleSet]:
        """In place of the private, the test and the public images; where some cannot be read, fewer are left as public."""
        samples = self.of.public()
        order = np.random.default_rng(_SEED).permutation(len(samples))
        rows = np.split(order, [self.num_train, self.num_train + self.num_test])
        return [SampleSet(samples.images[part], samples.labels[part], samples.num_classes) for part in map(np.sort, rows)]
