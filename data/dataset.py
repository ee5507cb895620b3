"""What every dataset offers: public facts as properties, and private, public and test images on request."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import NoReturn, Self

import numpy as np
from omegaconf import MISSING

from data.samples import SampleSet
from errors import reject_unless, require
from privacy.inherited import PublicInput
from privacy.mechanisms import Unit

_SUBSET_SEED = 20_240_607  # fixed: the subsets are part of the datasets' definition


class ClassCounts(Enum):
    """How a conditional method learns how many images each class has; every dataset states one."""

    uniform = "uniform"  # it does not: all classes get equally many samples, and the counts are never read
    public = "public"  # the exact counts are declared to be public knowledge, and the certificate says so
    laplace = "laplace"  # the counts are read with discrete Laplace noise, which is in the ledger
    moments = "moments"  # from the noisy sums of dp_moments, of a warm-up or of a mean embedding, at no further cost


@dataclass(kw_only=True)
class Dataset:
    """Settings of a dataset; opening images is what the methods do, nothing here reads a file before they are called."""

    name: str = MISSING
    class_counts: ClassCounts = MISSING  # how a conditional method learns how many images each class has
    fraction: float = 1.0  # of the training images are the private dataset: always the same ones
    stratified: bool = False  # with `fraction`: classes keep their shares; False: drawn whatever the label
    keep_classes: list[str] | None = None  # a class subset, by name; labels follow this order
    made_up_users: int | None = None  # with privacy.unit=user: every so many images are taken for one person's, to study the unit

    unit = Unit.image  # no setting of its own: `privacy.unit`, which the run's settings tell it

    # Public facts. The number of units is taken as public, and the certificate says so.
    @property
    def num_private(self) -> int:
        """N: of units, private images or users."""
        return self.num_private_images if self.unit is Unit.image else self.num_users

    def counted(self, classes: int) -> str:
        """`1,437 images in 10 classes`"""
        return f"{self.num_private:,} {self.unit.plural} in {classes} class{'es' * (classes > 1)}"

    @property
    def num_private_images(self) -> int:
        return max(1, round(self.fraction * self.num_train))

    @property
    def num_users(self) -> int:
        """Whose the private images are."""
        assert self.made_up_users is not None
        return -(-self.num_private_images // self.made_up_users)

    @property
    def says_whose(self) -> str:
        """The end of an error message: which settings tell this dataset whose its images are."""
        return ""

    @property
    def knows_users(self) -> bool:
        return self.made_up_users is not None

    @property
    def num_train(self) -> int:
        raise NotImplementedError

    @property
    def num_test(self) -> int:
        """Before the test images are opened: about, where it is not a published fact."""
        raise NotImplementedError

    @property
    def num_public(self) -> int:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        raise NotImplementedError

    @property
    def features(self) -> str | None:
        """The feature extractor, under models/weights, in whose space samples of this dataset are judged; None: the model's."""
        return None

    @property
    def classes(self) -> list[str]:
        return self.all_classes if self.keep_classes is None else list(self.keep_classes)

    @property
    def all_classes(self) -> list[str]:
        """Before `keep_classes`."""
        raise NotImplementedError

    @property
    def class_numbers(self) -> np.ndarray:
        """int64 [classes]: each class's place among all, which is what a model of this dataset knows it by."""
        if self.keep_classes is None:
            return np.arange(len(self.classes))
        return np.array([self.all_classes.index(name) for name in self.keep_classes], np.int64)

    def kept(self, samples: SampleSet) -> SampleSet:
        """The samples of the classes to keep, with their labels there."""
        if self.keep_classes is None:
            return samples
        label_of = np.full(samples.num_classes, -1, np.int64)
        label_of[self.class_numbers] = np.arange(len(self.class_numbers))
        labels = label_of[samples.labels]
        return SampleSet(samples.images[labels >= 0], labels[labels >= 0], len(self.class_numbers))

    def prepare(self) -> None:
        """Before a run opens anything: files are there, or are downloaded where that was asked for; InputError otherwise."""

    def notes(self) -> list[str]:
        """What was understood of the user's files, in sentences for the terminal alone, as they may hold private numbers."""
        return []

    def private(self) -> SampleSet:
        """InputError where they are not the number that is taken as public."""
        samples = self.train()
        problem = f"its files are not the {self.num_train:,} training images that are taken as public"
        reject_unless(len(samples) == self.num_train, "dataset.name", self.name, problem)
        if self.fraction != 1:
            samples = samples[subset(samples.labels, self.num_private_images, self.stratified)]
        if self.unit is Unit.image:
            return samples
        assert self.made_up_users is not None
        users = np.random.default_rng(_SUBSET_SEED).permutation(len(samples)) // self.made_up_users
        return replace(samples, users=users.astype(np.int64))

    def sealed(self) -> Self:
        """The same for a method, which gets private images by `PrivateDataset.spend` and test images not at all: RuntimeError."""
        view = copy.copy(self)
        for name in ("private", "train", "test"):
            setattr(view, name, _refused)
        return view

    def train(self) -> SampleSet:
        """All training images, which `private` are some of."""
        raise NotImplementedError

    def public(self) -> SampleSet:
        """Public images of the private ones' shape, where `num_public` is not 0."""
        raise NotImplementedError

    @property
    def renders_public(self) -> bool:
        """Whether a program draws its public images, which then are nobody's."""
        return False

    def public_inputs(self) -> list[PublicInput]:
        """Where public images are read from that the user brings: those of a release have spent, as its model has."""
        return []

    def own_public_parts(self) -> Iterator[np.ndarray]:
        """uint8 [n, H, W, C]: the public images that the user brings, part by part, to be compared with the private ones.

        None of a program's, and none of a published dataset's, which pre-training keeps the digests of.
        """
        yield from ()

    def some_public(self) -> SampleSet:
        """Public images for an evaluator that needs no more than some thousands: fewer, where that is quicker."""
        return self.public()

    @property
    def public_classes(self) -> list[str]:
        """The names of their labels, which need not be the private ones'."""
        return self.classes

    def test(self) -> SampleSet:
        raise NotImplementedError

    @property
    def may_be_fewer(self) -> bool:
        """Whether some of `num_private` units may turn out unreadable and be left out: to the mechanisms they are absent."""
        return False

    @property
    def bytes(self) -> int:
        """What training and test images take in main memory, as uint8."""
        return (self.num_train + self.num_test) * math.prod(self.shape)

    @property
    def file_bytes(self) -> int:
        """What training and test images take on disk while a run lasts, where they are too many for main memory."""
        return 0

    @property
    def decoding_bytes(self) -> int:
        """What opening them takes for that time, beyond `bytes`."""
        return 0

    def check(self) -> None:
        """Raise InputError for settings that cannot be used; opens no private image."""
        require(
            self.class_counts in ClassCounts,
            "dataset.class_counts",
            self.class_counts,
            "one of uniform, public, laplace, moments",
        )
        size = self.made_up_users
        require(size is None or size >= 1, "dataset.made_up_users", size, "1 or more, or null")
        known = self.unit is Unit.image or self.knows_users
        require(
            known, "privacy.unit", self.unit, f"image, as dataset={self.name} does not say whose its images are{self.says_whose}"
        )
        require(0 < self.fraction <= 1, "dataset.fraction", self.fraction, "above 0 and at most 1")
        if (keep := self.keep_classes) is not None:
            known = 0 < len(set(keep)) == len(keep) and set(keep) <= set(self.all_classes)
            require(known, "dataset.keep_classes", keep, f"different ones of {', '.join(self.all_classes)}")

    def assumptions(self) -> list[str]:
        """What a certificate repeats as public information."""
        subset = " (of the classes that are kept, which counts their labels)" if self.keep_classes else ""
        what = "number of private images" if self.unit is Unit.image else "number of users"
        facts = [f"{what}: {self.num_private}{subset}", f"class names: {', '.join(self.classes)}"]
        if self.unit is Unit.user and self.made_up_users is not None:
            facts.append(f"users are made up: each has {self.made_up_users} images drawn at random, and is no person")
        return facts

    @property
    def chosen(self) -> str:
        """Which images are private, for plan and certificate: the guarantee is about these and no others."""
        of = f"training images of {self.name}" + (f", classes {', '.join(self.classes)}" if self.keep_classes else "")
        if self.unit is Unit.user:  # how many images they have is private
            part = "" if self.fraction == 1 else f": fraction {self.fraction:g}, {self._drawn}"
            return f"all images of {self.num_private} users among the {of}{part}"
        if self.fraction == 1:
            return f"all {self.num_train} {of}"
        return f"{self.num_private} of the {self.num_train} {of}: fraction {self.fraction:g}, {self._drawn}"

    @property
    def _drawn(self) -> str:
        """How `fraction` chooses."""
        return f"fixed rows of official files{', by class' if self.stratified else ''}"

    def guarantee(self) -> dict:
        """What a certificate says that it is about."""
        counted = "private_images" if self.unit is Unit.image else "private_users"
        return {counted: self.num_private, "guarantee_is_about": self.chosen}

    def facts(self) -> dict:
        return {
            "name": self.name,
            "n_private": self.num_private,
            "n_private_is": "taken as public",
            "private_is": self.chosen,
            "n_public": self.num_public,
            "shape": list(self.shape),
            "classes": self.classes,
        }


def subset(labels: np.ndarray, size: int, stratified: bool) -> np.ndarray:
    """`size` row numbers, ascending, of int64 labels [N]: the same for the same labels, and each smaller set in every larger one.

    Stratified: each class gets its share up to one image. It is how a smaller dataset is made up, not a step of a method:
    the subset is the private dataset, and its neighbours are those with one image more or less. One row more redraws it: it is
    for official files, whose rows are fixed; files that a user may add to are chosen by name (`data.listed`).
    """
    order = np.random.default_rng(_SUBSET_SEED).permutation(len(labels))
    if stratified:
        place = np.empty(len(labels))
        for label in np.unique(labels):
            mine = order[labels[order] == label]
            place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        order = order[np.argsort(place[order], kind="stable")]
    return np.sort(order[:size])


def _refused() -> NoReturn:
    raise RuntimeError("a method reads private images by private.spend(purpose, mechanism) alone, and no test images")
