"""Downsampled ImageNet (Chrabaszcz et al. 2017) from its official npz archives: `dataset=imagenet32`, `imagenet64`.

A folder with `train_data_batch_1.npz` … `_10.npz` and `val_data.npz` (`data` uint8 [N, 3·S·S], channels first; `labels` from 1
on), and `map_clsloc.txt`, whose lines are `n02119789 1 kit_fox`: WordNet id, label, name. Labels follow that list, not the
order of the ids.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.dataset import Dataset
from data.samples import SampleSet
from errors import InputError, require

NUM_CLASSES, NUM_TRAIN, NUM_TEST, BATCHES = 1000, 1_281_167, 50_000, 10


@dataclass(kw_only=True)
class ImageNet(Dataset):
    """`classes` are WordNet ids, as names repeat (two cranes, two maillots)."""

    name: str = "imagenet32"
    path: str = "datasets/imagenet32"
    image_size: int = 32

    @property
    def num_train(self) -> int:
        return NUM_TRAIN

    @property
    def num_test(self) -> int:
        return NUM_TEST

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
        rows = [line.split() for line in listed.read_text().splitlines() if line.strip()]
        names = {int(row[1]) - 1: row[0] for row in rows if len(row) >= 2 and row[1].isdecimal()}
        require(names.keys() == set(range(NUM_CLASSES)), "dataset.path", listed, f"a list of {NUM_CLASSES} labels")
        return [names[label] for label in range(NUM_CLASSES)]

    def check(self) -> None:
        super().check()
        require(self.keep_classes is None, "dataset.keep_classes", self.keep_classes, f"null: dataset={self.name} has no subsets")
        require(self.image_size in (8, 16, 32, 64), "dataset.image_size", self.image_size, "one of 8, 16, 32, 64")

    def prepare(self) -> None:
        for file in ("train_data_batch_1.npz", "map_clsloc.txt"):
            require(Path(self.path, file).exists(), "dataset.path", self.path, f"has no {file} of downsampled ImageNet")

    def train(self) -> SampleSet:
        return self._read([f"train_data_batch_{number}.npz" for number in range(1, BATCHES + 1)])

    def test(self) -> SampleSet:
        return self._read(["val_data.npz"])

    def _read(self, files: list[str]) -> SampleSet:
        images, labels = zip(*(self._archive(Path(self.path, file)) for file in files), strict=True)
        return SampleSet(np.concatenate(images), np.concatenate(labels), NUM_CLASSES)

    def _archive(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as file:
                data, labels = file["data"], file["labels"].astype(np.int64) - 1
            images = data.reshape(-1, 3, self.image_size, self.image_size).transpose(0, 2, 3, 1)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            size = f"{self.image_size}×{self.image_size}"
            raise InputError(f"{path}: is no archive of downsampled ImageNet at {size} ({error})") from error
        if len(labels) != len(images) or not ((labels >= 0) & (labels < NUM_CLASSES)).all():
            raise InputError(f"{path}: labels are not one of 1 … {NUM_CLASSES} for each image")
        return images.astype(np.uint8, copy=False), labels
