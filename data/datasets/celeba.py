"""CelebA (Liu et al. 2015), aligned faces from the official files; the label is the attribute `Male`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.datasets.counterpart import WithCounterpart
from data.decoding import Listing
from data.files import in_folder
from data.listed import Listed
from errors import require, unusable

ATTRIBUTES, PARTITION, IMAGES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"


@dataclass(kw_only=True)
class CelebA(Listed, WithCounterpart):
    """Private: the training partition; test: the test partition. The central 178×178 pixels, resized to `image_size`."""

    name: str = "celeba"
    path: str = "datasets/celeba"  # the folder of the official files
    image_size: int = 32  # side of an image, in pixels
    attribute: str = "Male"  # of the 40, the one that is the label

    @property
    def num_train(self) -> int:
        return 162_770 if self.keep_classes is None else super().num_train

    @property
    def num_test(self) -> int:
        return 19_962

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def all_classes(self) -> list[str]:
        return [f"not {self.attribute.lower()}", self.attribute.lower()]

    def check(self) -> None:
        super().check()
        require(8 <= self.image_size <= 178, "dataset.image_size", self.image_size, "from 8 to 178")

    def lists(self) -> tuple[Listing, Listing]:
        attributes, parts = self._lines(ATTRIBUTES), self._lines(PARTITION)
        names = attributes[1] if len(attributes) > 1 else []  # after a count; then comes a line for each image
        require(self.attribute in names, "dataset.attribute", self.attribute, f"one of {', '.join(names)}")
        column = names.index(self.attribute) + 1
        try:
            male = {row[0]: int(row[column] == "1") for row in attributes[2:]}
            chosen = {part: [(name, male[name]) for name, of in parts if of == part] for part in ("0", "2")}
        except (IndexError, KeyError, ValueError) as error:
            raise unusable("dataset.path", self.path, f"{ATTRIBUTES} and {PARTITION} do not fit each other ({error})") from error
        return self._listing(chosen["0"]), self._listing(chosen["2"])

    def _lines(self, name: str) -> list[list[str]]:
        try:
            return [line.split() for line in Path(self.path, name).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise unusable("dataset.path", self.path, f"it has no readable {name} of CelebA ({error})") from error

    def _listing(self, pairs: list[tuple[str, int]]) -> Listing:
        folder = Path(self.path, IMAGES)
        labels = np.array([label for _, label in pairs], np.int64)
        return Listing(folder, self.all_classes, [name for name, _ in pairs], labels, functools.partial(in_folder, folder))
