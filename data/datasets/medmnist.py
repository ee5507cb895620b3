"""MedMNIST v2 (Yang et al. 2023), the 2D sets, from their official npz files: `dataset=medmnist dataset.name=pneumoniamnist`.

A file has `train_images`, `val_images`, `test_images` (uint8 [N, S, S] or [N, S, S, 3]) and their `…_labels` ([N, 1]). It is
called `pneumoniamnist.npz` at 28×28, and `pneumoniamnist_64.npz` at 64×64. Numbers and names are those of the package `medmnist`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.arrays import header
from data.datasets.counterpart import WithCounterpart
from data.samples import SampleSet
from errors import reject_unless, require, unusable

MULTI_LABEL = "chestmnist"
ORGANS = [
    "bladder",
    "left femur",
    "right femur",
    "heart",
    "left kidney",
    "right kidney",
    "liver",
    "left lung",
    "right lung",
    "pancreas",
    "spleen",
]
TISSUES = [
    "adipose",
    "background",
    "debris",
    "lymphocytes",
    "mucus",
    "smooth muscle",
    "normal colon mucosa",
    "cancer-associated stroma",
    "colorectal adenocarcinoma epithelium",
]
LESIONS = [
    "actinic keratoses and intraepithelial carcinoma",
    "basal cell carcinoma",
    "benign keratosis-like lesions",
    "dermatofibroma",
    "melanoma",
    "melanocytic nevi",
    "vascular lesions",
]
BLOOD_CELLS = [
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
]
KIDNEY_CELLS = [
    "collecting duct or connecting tubule",
    "distal convoluted tubule",
    "glomerular endothelial cells",
    "interstitial endothelial cells",
    "leukocytes",
    "podocytes",
    "proximal tubule segments",
    "thick ascending limb",
]
EYES = ["choroidal neovascularization", "diabetic macular edema", "drusen", "normal"]
GRADES = [f"grade {grade} of retinopathy" for grade in range(5)]


@dataclass(frozen=True)
class Facts:
    """What is public about a set."""

    num_train: int
    num_val: int
    num_test: int
    channels: int
    classes: Sequence[str]  # in the order of their labels


FACTS = {
    "pathmnist": Facts(89_996, 10_004, 7_180, 3, TISSUES),
    "dermamnist": Facts(7_007, 1_003, 2_005, 3, LESIONS),
    "octmnist": Facts(97_477, 10_832, 1_000, 1, EYES),
    "pneumoniamnist": Facts(4_708, 524, 624, 1, ["normal", "pneumonia"]),
    "retinamnist": Facts(1_080, 120, 400, 3, GRADES),
    "breastmnist": Facts(546, 78, 156, 1, ["malignant", "normal or benign"]),
    "bloodmnist": Facts(11_959, 1_712, 3_421, 3, BLOOD_CELLS),
    "tissuemnist": Facts(165_466, 23_640, 47_280, 1, KIDNEY_CELLS),
    "organamnist": Facts(34_561, 6_491, 17_778, 1, ORGANS),
    "organcmnist": Facts(12_975, 2_392, 8_216, 1, ORGANS),
    "organsmnist": Facts(13_932, 2_452, 8_827, 1, ORGANS),
}


@dataclass(kw_only=True)
class MedMNIST(WithCounterpart):
    """Private: the training split; test: the test split. The validation images are not used."""

    name: str = "pneumoniamnist"
    path: str = "datasets"  # the npz file, or the folder that it is in
    image_size: int = 28  # side of an image, in pixels

    @property
    def num_train(self) -> int:
        return FACTS[self.name].num_train

    @property
    def num_test(self) -> int:
        return FACTS[self.name].num_test

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, FACTS[self.name].channels)

    @property
    def all_classes(self) -> list[str]:
        return list(FACTS[self.name].classes)

    def check(self) -> None:
        several = "its images have several labels each, and a dataset here has one label for each image"
        reject_unless(self.name != MULTI_LABEL, "dataset.name", self.name, several)
        require(self.name in FACTS, "dataset.name", self.name, f"one of {', '.join(FACTS)}")
        super().check()
        unknown = f"null, as how many training images of {self.name} a class has is no published fact"
        require(self.keep_classes is None, "dataset.keep_classes", self.keep_classes, unknown)
        require(self.image_size in (28, 64), "dataset.image_size", self.image_size, "28 or 64")

    def prepare(self) -> None:
        missing = f"there is no {self._file.name}, the official file of {self.name} at {self.image_size}×{self.image_size}"
        reject_unless(self._file.is_file(), "dataset.path", self.path, missing)
        for split, number in self._sizes.items():
            self._check_headers(split, number)
        self.test()

    def train(self) -> SampleSet:
        return self._split("train")

    def test(self) -> SampleSet:
        return self._split("test")

    @property
    def _file(self) -> Path:
        path = Path(self.path)
        suffix = "" if self.image_size == 28 else f"_{self.image_size}"
        return path if path.suffix == ".npz" and not path.is_dir() else path / f"{self.name}{suffix}.npz"

    @property
    def _sizes(self) -> dict[str, int]:
        facts = FACTS[self.name]
        return {"train": facts.num_train, "val": facts.num_val, "test": facts.num_test}

    def _check_headers(self, split: str, number: int) -> None:
        """Nothing but types and sizes is read, and an error says what they must be: what they are may be private."""
        images, labels = f"{split}_images", f"{split}_labels"
        shape = (number, *self.shape) if self.shape[2] == 3 else (number, *self.shape[:2])
        with self._reading(images):
            found, dtype = header(self._file, images)
        official = found == shape and dtype == np.uint8
        reject_unless(official, "dataset.path", self.path, f"its {images} of {self.name} are not uint8 {list(shape)}")
        with self._reading(labels):
            found, dtype = header(self._file, labels)
        official = found == (number, 1) and dtype.kind in "iu"
        reject_unless(official, "dataset.path", self.path, f"its {labels} of {self.name} are not whole numbers [{number}, 1]")

    def _split(self, split: str) -> SampleSet:
        self._check_headers(split, self._sizes[split])
        with self._reading(f"{split} split"), np.load(self._file, allow_pickle=False) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int64)[:, 0]
            return SampleSet(images.reshape(len(images), *self.shape), labels, len(self.all_classes))

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        """What goes wrong is not repeated, as a reader may quote what it read."""
        try:
            yield
        except Exception as error:  # a foreign file may make anything of its reader
            raise unusable("dataset.path", self.path, f"it has no readable {part} of {self.name}") from error
