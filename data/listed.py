"""Datasets of image files: listed for a plan, decoded once before anything is spent, kept as uint8."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance

from data.dataset import Dataset
from data.decoding import IN_MEMORY, PICTURES, Decoded, Listing, OnBad, Reading, decode
from data.samples import SampleSet
from errors import reject_unless, require
from privacy.mechanisms import Unit


@dataclass(kw_only=True)
class Listed(Dataset):
    """`lists()` names private and test images; a plan opens none of them.

    With `fraction`, the private images are those whose names hash below it, each by its own name alone: one file more or less
    moves no other, a smaller fraction lies inside every larger one, and how many they are follows from the listing. So classes
    keep their shares in expectation, `stratified` or not: an exact share would push one image out where another comes in.
    """

    on_bad: OnBad = OnBad.error  # an image that cannot be read ends the run before anything is spent, or is left out

    @property
    def version(self) -> int:
        """Of what the settings mean: a fraction is chosen by name since 2."""
        return 1 if self.fraction == 1 else 2

    def lists(self) -> tuple[Listing, Listing]:
        """Private (before `fraction`) and test images, without opening one."""
        raise NotImplementedError

    @property
    def num_private_images(self) -> int:
        return self.num_train if self.fraction == 1 else len(self._rows)

    @property
    def knows_users(self) -> bool:
        return self.made_up_users is None and self._lists[0].users is not None

    @property
    def num_users(self) -> int:
        listing = self._lists[0]
        assert listing.users is not None
        return len(set(listing.users if self.fraction == 1 else listing[self._rows].users or []))

    @property
    def num_train(self) -> int:
        return len(self._lists[0])

    @property
    def num_test(self) -> int:
        return len(self._lists[1])

    @property
    def may_be_fewer(self) -> bool:
        return self.on_bad is OnBad.skip

    @property
    def bytes(self) -> int:
        return sum(size for size in self._sizes if size < IN_MEMORY)  # others are in a file

    @property
    def file_bytes(self) -> int:
        return sum(size for size in self._sizes if size >= IN_MEMORY)

    @property
    def _sizes(self) -> list[int]:
        return [count * math.prod(self.shape) for count in (self.num_train, self.num_test)]

    @property
    def decoding_bytes(self) -> int:
        return PICTURES

    @property
    def _drawn(self) -> str:
        if self.unit is Unit.user:
            return "each user by the hash of their name alone, so that one user more or less moves no other"
        return "each by the hash of its file's name alone, so that one file more or less moves no other"

    @property
    def chosen(self) -> str:
        bad = "" if self.on_bad is OnBad.error else "; files that cannot be read are counted too, and are left out"
        return f"{super().chosen}{bad}"

    @property
    def reading(self) -> Reading:
        return Reading()

    def layout_notes(self) -> list[str]:
        """How the files lie, and what of them is not used."""
        return []

    @property
    def listings(self) -> tuple[Listing, Listing]:
        """Private (before `fraction`) and test images of the classes that are kept."""
        return self._lists

    def notes(self) -> list[str]:
        notes = []
        for part, listing, decoded in zip(("private", "test"), self._lists, self._decoded, strict=True):
            if decoded.modes:
                kinds = ", ".join(f"{count} {mode}" for mode, count in sorted(decoded.modes.items()))
                notes.append(f"{part} images of other colour spaces are converted by Pillow: {kinds}")
            if bad := decoded.bad:
                notes.append(f"dataset.on_bad=skip: {len(bad)} {part} images are left out; the first: {listing.where}: {bad[0]}")
        return notes

    def changed(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [*shape] of a private or test image, to take the place of its pixels."""
        return pixels

    def check(self) -> None:
        super().check()
        none = self.made_up_users is None
        require(
            none, "dataset.made_up_users", self.made_up_users, f"null, as dataset={self.name} is of files, which may come and go"
        )

    def prepare(self) -> None:
        private, test = self._lists
        reject_unless(len(private) > 0, "dataset.path", private.where, "it lists no private image")
        reject_unless(len(test) > 0 or self.num_test == 0, "dataset.path", test.where, "it lists no test image")
        require_users_apart(private, test, "dataset.path", test.where)
        require(
            len(self._lists[0]) == self.num_train,
            "dataset.path",
            self._lists[0].where,
            f"a place with {self.num_train:,} private images",
        )
        reject_unless(
            len(self.test()) > 0 or self.num_test == 0,
            "dataset.path",
            self._lists[1].where,
            "it lists no test image that can be read",
        )

    def private(self) -> SampleSet:
        """With users, where they are the units."""
        samples = self.train()
        if self.fraction != 1:
            samples = samples[np.flatnonzero(np.isin(self._decoded[0].rows, self._rows))]
        return samples if self.unit is Unit.user else replace(samples, users=None)

    def train(self) -> SampleSet:
        return self._decoded[0].samples

    def test(self) -> SampleSet:
        return self._decoded[1].samples

    @functools.cached_property
    def _lists(self) -> tuple[Listing, Listing]:
        private, test = self.lists()
        if self.keep_classes is None:
            return private, test
        return private.of_classes(self.keep_classes), test.of_classes(self.keep_classes)

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        """Of the listing, int64 [num_private], ascending: those that `fraction` chooses."""
        names = self._lists[0].chosen_by if self.unit is Unit.user else self._lists[0].names
        rows = np.flatnonzero([uniform(name, "dataset.fraction") < self.fraction for name in names])
        require(len(rows) > 0, "dataset.fraction", self.fraction, "larger, as by the hash of names it chooses none")
        return rows

    @functools.cached_property
    def _decoded(self) -> list[Decoded]:
        return [decode(listing, self.shape, self.on_bad, self.changed, self.reading) for listing in self._lists]


def require_users_apart(private: Listing, other: Listing, key: str, where: object) -> None:
    """InputError that names a user with images in both, where users are known."""
    shared = min(set(private.users or []) & set(other.users or []), default=None)
    reject_unless(shared is None, key, where, f"user {shared} has images there, and private ones too")


def uniform(name: str, purpose: str = "") -> float:
    """In [0, 1), from a file's name alone: what is chosen by it stays where other files come and go.

    `purpose` (at most 16 bytes): choices for unlike purposes are independent.
    """
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def saturated(pixels: np.ndarray, factor: float) -> np.ndarray:
    """uint8 RGB [H, W, 3] with the saturation scaled: 0 is grey, 1 changes nothing (PE, Fig. 30)."""
    return pixels if factor == 1 else np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(factor))
