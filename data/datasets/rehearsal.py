"""A rehearsal: printed digits that stand in for private ones, to choose settings on. All of it is public.

The private digits are of one half of the faces, bold and oblique ones too, slanted, narrower and less bent; the public ones are
all printed digits. So the two differ about as two people's writing does, and nothing that is tried here has seen real data. The
`far` ones are turned and slanted so much that the public digits alone teach a LeNet four fifths of them, and a small CNN less.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from data.datasets.printed import NUM_PRINTED, Printed, num_fonts, render
from data.samples import SampleSet
from errors import require

_SEED = 1  # fixed: the splits are part of the definition
_NUM_TEST = 2000


class Gap(Enum):
    """Between the private and the public digits."""

    near = "near"
    far = "far"


# Mean and standard deviation of the angle in degrees, the shear and the logarithm of the width, and deviation of the bend.
_CHANGES = {Gap.near: ((0, 8), (0.3, 0.15), (-0.15, 0.15), 0.10), Gap.far: ((-20, 8), (0.7, 0.2), (-0.2, 0.15), 0.13)}


@dataclass(kw_only=True)
class Rehearsal(Printed):
    name: str = "rehearsal"
    image_size: int = 8  # side of an image, in pixels
    num_images: int = 1437  # that count as private
    gap: Gap = Gap.near  # how unlike the public digits the private ones are

    @property
    def num_train(self) -> int:
        return int(self._sizes(self.num_images)[self.class_numbers].sum())

    @property
    def num_test(self) -> int:
        return int(self._sizes(_NUM_TEST)[self.class_numbers].sum())

    @property
    def num_public(self) -> int:
        return NUM_PRINTED

    @property
    def public_classes(self) -> list[str]:
        return self.all_classes

    @property
    def renders_public(self) -> bool:
        return True

    def check(self) -> None:
        super().check()
        require(self.image_size in (8, 28), "dataset.image_size", self.image_size, "8 or 28")
        require(self.num_images >= 10, "dataset.num_images", self.num_images, "10 or more")

    def train(self) -> SampleSet:
        return self.kept(_slanted(self.num_images, _SEED, self.image_size, self.gap))

    def public(self) -> SampleSet:
        return super().train()

    def some_public(self) -> SampleSet:
        return self.some()

    def test(self) -> SampleSet:
        return self.kept(_slanted(_NUM_TEST, _SEED + 1, self.image_size, self.gap))

    @staticmethod
    def _sizes(count: int) -> np.ndarray:
        """int64 [10], of the classes: equal up to one."""
        return np.bincount(np.arange(count) % 10, minlength=10)


def _slanted(count: int, seed: int, size: int, gap: Gap) -> SampleSet:
    rng = np.random.default_rng(seed)
    labels, fonts = rng.permutation(np.arange(count) % 10), rng.integers(num_fonts() // 2, size=count)
    turn, slant, stretch, bent = _CHANGES[gap]
    angle, shear = rng.normal(*turn, count), rng.normal(*slant, count)
    width = np.exp(rng.normal(*stretch, count))
    images = np.empty((count, size, size, 1), np.uint8)
    for start in range(0, count, 2048):
        part = slice(start, min(start + 2048, count))
        bend = rng.normal(0, bent, (part.stop - start, 2, 4, 4))
        images[part] = render(labels[part], fonts[part], angle[part], shear[part], width[part], bend, size)
    return SampleSet(images, labels.astype(np.int64), 10)
