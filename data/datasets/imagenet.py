"""Downsampled ImageNet (Chrabaszcz et al. 2017) from its official npz archives: `dataset=imagenet32`, `imagenet64`.

A folder with `train_data_batch_1.npz` … `_10.npz` and `val_data.npz` (`data` uint8 [N, 3·S·S], channels first; `labels` from 1
on), and `map_clsloc.txt`, whose lines are `n02119789 1 kit_fox`: WordNet id, label, name. Labels follow that list, not the
order of the ids.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from data.dataset import Dataset
from data.samples import SampleSet
from errors import reason, reject_unless, require, unusable

NUM_CLASSES, NUM_TRAIN, NUM_TEST = 1000, 1_281_167, 50_000
TRAIN, TEST = [f"train_data_batch_{number}.npz" for number in range(1, 11)], ["val_data.npz"]


@dataclass(kw_only=True)
class ImageNet(Dataset):
    """`classes` are WordNet ids, as names repeat (two cranes, two maillots)."""

    name: str = "imagenet32"
    path: str = "datasets/imagenet32"  # the folder of the official files
    image_size: int = 32  # side of an image, in pixels

    path_key = "dataset.path"  # or where else `path` is set

    @property
    def num_train(self) -> int:
        return NUM_TRAIN if self.keep_classes is None else self._num_kept

    @property
    def num_test(self) -> int:
        return NUM_TEST // NUM_CLASSES * len(self.classes)

    @property
    def num_public(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def all_classes(self) -> list[str]:
        listed = Path(self.path, "map_clsloc.txt")
        if not listed.exists():
            return [f"label {label + 1}" for label in range(NUM_CLASSES)]
        rows = [line.split() for line in listed.read_text(errors="replace").splitlines() if line.strip()]
        names = {int(row[1]) - 1: row[0] for row in rows if len(row) >= 2 and row[1].isdecimal()}
        require(names.keys() == set(range(NUM_CLASSES)), self.path_key, listed, f"a list of {NUM_CLASSES} labels")
        return [names[label] for label in range(NUM_CLASSES)]

    def check(self) -> None:
        super().check()
        require(self.image_size in (8, 16, 32, 64), "dataset.image_size", self.image_size, "one of 8, 16, 32, 64")

    def prepare(self) -> None:
        for file in (*TRAIN, "map_clsloc.txt"):
            reject_unless(Path(self.path, file).exists(), "dataset.path", self.path, f"it has no {file} of downsampled ImageNet")
        self.test()

    def train(self) -> SampleSet:
        return self._read(TRAIN)

    def test(self) -> SampleSet:
        return self._read(TEST)

    def _read(self, files: list[str]) -> SampleSet:
        parts = [self.kept(self._archive(file)) for file in files]
        return SampleSet(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]), len(self.classes))

    def _archive(self, file: str) -> SampleSet:
        side = self.image_size
        with self._opened(file) as arrays:
            if (data := arrays["data"]).dtype != np.uint8:
                raise ValueError(f"data: {data.dtype} is not uint8")
            return SampleSet(data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1), _labels(arrays), NUM_CLASSES)

    @functools.cached_property
    def _num_kept(self) -> int:
        """Of the training images, by the labels in the archives; no image is read."""
        count = 0
        for file in TRAIN:
            with self._opened(file) as arrays:
                count += int(np.isin(_labels(arrays), self.class_numbers).sum())
        return count

    @contextmanager
    def _opened(self, file: str) -> Iterator[NpzFile]:
        try:
            with np.load(Path(self.path, file), allow_pickle=False) as arrays:
                yield arrays
        except Exception as error:  # a foreign file may make anything of its reader
            problem = f"{file} is no archive of downsampled ImageNet at {self.image_size}×{self.image_size}"
            raise unusable(self.path_key, self.path, f"{problem} ({reason(error)})") from error


def _labels(arrays: NpzFile) -> np.ndarray:
    """int64 [N] from 0 on."""
    if (labels := arrays["labels"]).dtype.kind not in "iu":
        raise ValueError(f"labels: {labels.dtype} is no whole number")
    return labels.astype(np.int64) - 1
