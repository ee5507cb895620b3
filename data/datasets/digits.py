"""The embedded dataset: handwritten digits are private, printed digits are public. Nothing to download.

Private and test: scikit-learn's `load_digits` (UCI Optical Recognition of Handwritten Digits, Alpaydin & Kaynak 1998),
1,797 images of 8×8 pixels with 17 grey levels. Public: see `data.datasets.printed`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from data.datasets.printed import NUM_PRINTED, printed, some_printed
from data.samples import SampleSet

SIZE = 8
NUM_PRIVATE, NUM_TEST = 1437, 360
CLASS_SIZES = [142, 148, 147, 148, 143, 143, 148, 138, 140, 140]  # of the private split
_SPLIT_SEED = 20_230_524  # fixed: the splits are part of the dataset's definition


def handwritten(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The `private` (1,437) or `test` (360) split: uint8 [N, 8, 8, 1] and int64 [N]; disjoint and fixed."""
    images, labels = _digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    rows = {"private": order[:NUM_PRIVATE], "test": order[NUM_PRIVATE:]}[split]
    return images[rows], labels[rows]


@functools.cache  # they are parsed from text
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None], digits.target.astype(np.int64)


@dataclass(kw_only=True)
class Digits(Dataset):
    name: str = "digits"

    @property
    def num_train(self) -> int:
        return NUM_PRIVATE if self.keep_classes is None else int(np.asarray(CLASS_SIZES)[self.class_numbers].sum())

    @property
    def num_test(self) -> int:
        return NUM_TEST

    @property
    def num_public(self) -> int:
        return NUM_PRINTED

    @property
    def shape(self) -> tuple[int, int, int]:
        return (SIZE, SIZE, 1)

    @property
    def features(self) -> str:
        return "digits"

    @property
    def all_classes(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    @property
    def public_classes(self) -> list[str]:
        return self.all_classes

    @property
    def renders_public(self) -> bool:
        return True

    def train(self) -> SampleSet:
        return self.kept(SampleSet(*handwritten("private"), num_classes=10))

    def public(self) -> SampleSet:
        return SampleSet(*printed(), num_classes=10)

    def some_public(self) -> SampleSet:
        return some_printed()

    def test(self) -> SampleSet:
        return self.kept(SampleSet(*handwritten("test"), num_classes=10))
