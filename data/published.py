"""Datasets of the papers, from their official files, and their public counterparts. Nothing is downloaded unless
`dataset.download=true`.

MNIST, Fashion-MNIST, CIFAR-10 and SVHN are read by torchvision; Camelyon17 is the patch version of WILDS (Koh et al. 2021).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.dataset import Dataset
from data.imagenet import ImageNet
from data.images import conform
from data.samples import SampleSet
from errors import InputError, require

DIGITS = [str(digit) for digit in range(10)]
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
OBJECTS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Facts:
    """What is public about a dataset of torchvision: its class there, sizes of the splits, and where its files are."""

    loader: str
    num_train: int
    shape: tuple[int, int, int]
    classes: Sequence[str]
    train_file: str


FACTS = {
    "mnist": Facts("MNIST", 60_000, (28, 28, 1), DIGITS, "MNIST/raw/train-images-idx3-ubyte"),
    "fashion_mnist": Facts("FashionMNIST", 60_000, (28, 28, 1), CLOTHES, "FashionMNIST/raw/train-images-idx3-ubyte"),
    "cifar10": Facts("CIFAR10", 50_000, (32, 32, 3), OBJECTS, "cifar-10-batches-py/data_batch_1"),
    "svhn": Facts("SVHN", 73_257, (32, 32, 3), DIGITS, "train_32x32.mat"),
}


class PublicName(Enum):
    """The public counterpart: images that a public model is trained on."""

    none = "none"
    svhn = "svhn"
    imagenet32 = "imagenet32"


@dataclass(kw_only=True)
class Published(Dataset):
    """Private: the training split, in its order, without the last `held_out` images; test: the test split."""

    path: str = "datasets"  # the folder that torchvision calls root
    download: bool = False
    held_out: int = 0
    public_name: PublicName = PublicName.none
    public_path: str = "datasets"

    @property
    def num_train(self) -> int:
        return FACTS[self.name].num_train - self.held_out

    @property
    def num_public(self) -> int:
        return self._counterpart.num_train if self._counterpart else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return FACTS[self.name].shape

    @property
    def public_classes(self) -> list[str]:
        return self._counterpart.classes if self._counterpart else []

    def public(self) -> SampleSet:
        assert self._counterpart is not None
        self._counterpart.prepare()
        samples = self._counterpart.train()
        return SampleSet(conform(samples.images, self.shape), samples.labels, samples.num_classes)

    @property
    def _counterpart(self) -> Dataset | None:
        place: dict[str, Any] = {"path": self.public_path, "class_counts": self.class_counts}
        if self.public_name is PublicName.imagenet32:
            return ImageNet(**place)
        return (
            Published(name=self.public_name.value, download=self.download, **place) if self.public_name.value in FACTS else None
        )

    @property
    def classes(self) -> list[str]:
        return list(FACTS[self.name].classes)

    def check(self) -> None:
        super().check()
        require(self.name in FACTS, "dataset.name", self.name, f"one of {', '.join(FACTS)}")
        most = FACTS[self.name].num_train - 1
        require(0 <= self.held_out <= most, "dataset.held_out", self.held_out, f"0 to {most}")

    def prepare(self) -> None:
        if self.download:
            self._split(train=True)
            self._split(train=False)
        missing = Path(self.path, FACTS[self.name].train_file)
        require(missing.exists(), "dataset.path", self.path, f"has no {missing.relative_to(self.path)}; or dataset.download=true")

    def train(self) -> SampleSet:
        return self._split(train=True)[: self.num_train]

    def test(self) -> SampleSet:
        return self._split(train=False)

    def _split(self, train: bool) -> SampleSet:
        import torchvision.datasets

        facts = FACTS[self.name]
        split: dict[str, Any] = {"split": "train" if train else "test"} if facts.loader == "SVHN" else {"train": train}
        try:
            loaded = getattr(torchvision.datasets, facts.loader)(self.path, download=self.download, **split)
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"dataset.path={self.path}: no readable {self.name} ({error})") from error
        images = np.asarray(loaded.data)
        if facts.loader == "SVHN":
            images = images.transpose(0, 2, 3, 1)
        labels = np.asarray(loaded.labels if facts.loader == "SVHN" else loaded.targets)
        return SampleSet(images.reshape(-1, *facts.shape), labels.astype(np.int64), len(facts.classes))


@dataclass(kw_only=True)
class Camelyon17(Dataset):
    """Tumour or not in 96×96 patches of lymph nodes, area-averaged to `image_size`; WILDS' official splits.

    Private: the training patches (hospitals 0, 3 and 4); test: hospital 2.
    """

    name: str = "camelyon17"
    path: str = "datasets/camelyon17_v1.0"
    image_size: int = 64

    @property
    def num_train(self) -> int:
        return 302_436

    @property
    def num_public(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def classes(self) -> list[str]:
        return ["no tumour", "tumour"]

    def check(self) -> None:
        super().check()
        require(self.image_size in (32, 64, 96), "dataset.image_size", self.image_size, "one of 32, 64, 96")

    def prepare(self) -> None:
        require(
            Path(self.path, "metadata.csv").exists(), "dataset.path", self.path, "has no metadata.csv of WILDS' camelyon17_v1.0"
        )

    def train(self) -> SampleSet:
        return self._read(lambda row: row["split"] == "0" and row["center"] in "034")

    def test(self) -> SampleSet:
        return self._read(lambda row: row["center"] == "2")

    def _read(self, wanted: Any) -> SampleSet:
        with Path(self.path, "metadata.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if wanted(row)]
        with ThreadPoolExecutor() as pool:
            images = np.stack(list(pool.map(self._patch, rows))) if rows else np.empty((0, *self.shape), np.uint8)
        return SampleSet(images, np.array([int(row["tumor"]) for row in rows], np.int64), 2)

    def _patch(self, row: dict[str, str]) -> np.ndarray:
        node = f"patient_{row['patient']}_node_{row['node']}"
        file = Path(self.path, "patches", node, f"patch_{node}_x_{row['x_coord']}_y_{row['y_coord']}.png")
        try:
            with Image.open(file) as image:
                return np.asarray(image.convert("RGB").resize((self.image_size, self.image_size), Image.Resampling.BOX))
        except OSError as error:
            raise InputError(f"{file}: is no readable image ({error})") from error
