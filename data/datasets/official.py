"""Datasets of the papers, from their official files. Nothing is downloaded unless `dataset.download=true`.

MNIST, Fashion-MNIST, CIFAR-10 and SVHN, read by torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Dataset
from data.samples import SampleSet
from errors import reason, reject_unless, require, unusable

DIGITS = [str(digit) for digit in range(10)]
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
MNIST_SIZES = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
SVHN_SIZES = [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659]
OBJECTS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Facts:
    """What is public about a dataset of torchvision: its class there, sizes of the splits, and where its files are."""

    loader: str
    num_train: int
    num_test: int
    shape: tuple[int, int, int]
    classes: Sequence[str]
    class_sizes: Sequence[int]  # of the training split
    train_file: str


FACTS = {
    "mnist": Facts("MNIST", 60_000, 10_000, (28, 28, 1), DIGITS, MNIST_SIZES, "MNIST/raw/train-images-idx3-ubyte"),
    "fashion_mnist": Facts(
        "FashionMNIST", 60_000, 10_000, (28, 28, 1), CLOTHES, [6_000] * 10, "FashionMNIST/raw/train-images-idx3-ubyte"
    ),
    "cifar10": Facts("CIFAR10", 50_000, 10_000, (32, 32, 3), OBJECTS, [5_000] * 10, "cifar-10-batches-py/data_batch_1"),
    "svhn": Facts("SVHN", 73_257, 26_032, (32, 32, 3), DIGITS, SVHN_SIZES, "train_32x32.mat"),
}


@dataclass(kw_only=True)
class Official(Dataset):
    """Private: the training split, in its order, without the last `held_out` images; test: the test split."""

    path: str = "datasets"  # the folder that torchvision calls root
    download: bool = False  # let torchvision fetch what is missing
    held_out: int = 0  # training images at the end that are left out, for a choice on other images than the test images

    path_key = "dataset.path"  # or where else `path` is set

    @property
    def num_train(self) -> int:
        if self.keep_classes is None:
            return FACTS[self.name].num_train - self.held_out
        return int(np.asarray(FACTS[self.name].class_sizes)[self.class_numbers].sum())

    @property
    def num_test(self) -> int:
        return FACTS[self.name].num_test

    @property
    def shape(self) -> tuple[int, int, int]:
        return FACTS[self.name].shape

    @property
    def all_classes(self) -> list[str]:
        return list(FACTS[self.name].classes)

    def check(self) -> None:
        super().check()
        require(self.name in FACTS, "dataset.name", self.name, f"one of {', '.join(FACTS)}")
        most = FACTS[self.name].num_train - 1
        require(0 <= self.held_out <= most, "dataset.held_out", self.held_out, f"from 0 to {most}")
        whole = self.keep_classes is None or not self.held_out
        require(
            whole,
            "dataset.held_out",
            self.held_out,
            "0 with dataset.keep_classes, as what is left of a class is no published fact",
        )

    def prepare(self) -> None:
        if self.download:
            self._split(train=True)
        else:
            missing = Path(self.path, FACTS[self.name].train_file)
            problem = f"it has no {missing.relative_to(self.path)}; dataset.download=true downloads it"
            reject_unless(missing.exists(), "dataset.path", self.path, problem)
        self._split(train=False)

    def train(self) -> SampleSet:
        return self.kept(self._split(train=True)[: FACTS[self.name].num_train - self.held_out])

    def test(self) -> SampleSet:
        return self.kept(self._split(train=False))

    def _split(self, train: bool) -> SampleSet:
        import torchvision.datasets

        facts = FACTS[self.name]
        split: dict[str, Any] = {"split": "train" if train else "test"} if facts.loader == "SVHN" else {"train": train}
        try:
            loaded = getattr(torchvision.datasets, facts.loader)(self.path, download=self.download, **split)
            images, labels = np.asarray(loaded.data), loaded.labels if facts.loader == "SVHN" else loaded.targets
            if facts.loader == "SVHN":
                images = images.transpose(0, 2, 3, 1)
            images = images.reshape(*images.shape[:3], -1)
            if images.shape[1:] != facts.shape:
                raise ValueError(f"{list(images.shape[1:])} is not {list(facts.shape)}")
            return SampleSet(images, np.asarray(labels, np.int64), len(facts.classes))
        except Exception as error:  # a foreign file may make anything of its reader
            part = "training" if train else "test"
            problem = f"it has no readable {part} images of {self.name} ({reason(error)})"
            raise unusable(self.path_key, self.path, problem) from error
