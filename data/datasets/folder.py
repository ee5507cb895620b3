"""The user's own images: `dataset=folder dataset.path=… dataset.image_size=…`. See `data.layouts` for what may be there."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from omegaconf import MISSING

from data.decoding import DICOM, Fit, Listing, Reading, decode
from data.layouts import Layout, layout_of, list_images
from data.listed import Listed, require_users_apart, uniform
from data.overlap import require_apart
from data.samples import SampleSet
from data.tables import Columns
from errors import reject_unless, require, unusable
from privacy.inherited import PublicInput
from privacy.mechanisms import Unit

_PLACE = "a folder, zip, tar, npz or Parquet file that is there"
PART = 4096  # public images that are decoded at once, where they are only compared with private ones


@dataclass(kw_only=True)
class Folder(Listed):
    """Private: the images at `path`. For tests: those at `test_path`, in its own folder for tests, or `test_fraction` of them."""

    name: str = "folder"
    path: str = MISSING  # a folder, zip, tar, npz or Parquet file
    test_path: str | None = None  # test images of your own
    test_fraction: float = 0.2  # without other test images: chosen by the hash of their names; 0: none
    public_path: str | None = None  # public images of the same kind, for pre-training
    image_size: int = MISSING  # side of an image, in pixels: what is read is resized to it
    image_channels: int | None = None  # 1 (grey) or 3 (RGB); null: of an npz its own, of DICOM 1, else 3
    fit: Fit = Fit.crop  # cut to the central square, or filled up with black
    window: list[float] | None = None  # [low, high] of more than 8 bits: what becomes black and what white
    label_column: str | None = None  # of a table of labels; null: one of the usual names
    file_column: str | None = None  # of the same table: which image a line is about; null: one of the usual names
    user_column: str | None = None  # of the same table: whose an image is
    user_pattern: str | None = None  # or a regular expression: its first group, or all of it, finds the user in a file's name

    @property
    def says_whose(self) -> str:
        return "; dataset.user_pattern or dataset.user_column says it"

    @property
    def num_public(self) -> int:
        return len(self._public_list) if self._public_list else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, self.image_channels or self._usual_channels)

    @property
    def reading(self) -> Reading:
        return Reading(self.fit, None if self.window is None else (self.window[0], self.window[1]))

    @property
    def columns(self) -> Columns:
        return Columns(self.file_column, self.label_column, self.user_column)

    @property
    def decoding_bytes(self) -> int:
        listings = [*self._lists, *filter(None, [self._public_list])]
        return max(listing.decoding_bytes for listing in listings)

    @property
    def all_classes(self) -> list[str]:
        return self._everything.private.classes

    @property
    def public_classes(self) -> list[str]:
        return self._public_list.classes if self._public_list else []

    @property
    def chosen(self) -> str:
        if self._own_test:
            return super().chosen
        if self.knows_users:
            return f"{super().chosen}; test images are of another {self.test_fraction:g} of the users, by the hash of their names"
        return f"{super().chosen}; test images are another {self.test_fraction:g} of the files, by the hash of their names"

    def check(self) -> None:
        for key in ("path", "test_path", "public_path"):
            value = getattr(self, key)
            require(value is None or Path(value).exists(), f"dataset.{key}", value, _PLACE)
        self._check_users()
        super().check()
        require(1 <= self.image_size <= 4096, "dataset.image_size", self.image_size, "from 1 to 4096")
        known = self.image_channels in (None, 1, 3)
        require(known, "dataset.image_channels", self.image_channels, "1 (grey), 3 (RGB) or null")
        ends = self.window
        right = ends is None or (len(ends) == 2 and all(map(math.isfinite, ends)) and ends[0] < ends[1])
        require(right, "dataset.window", ends, "[low,high] with low below high, or null")
        require(
            0 <= self.test_fraction < 1, "dataset.test_fraction", self.test_fraction, "0 (none is held out) or more, and below 1"
        )
        require_apart({f"dataset.{key}": getattr(self, key) for key in ("path", "test_path", "public_path")})
        if self._nameless:
            allowed = "another place, as images without names cannot be split so that one more moves no other"
            require(self._own_test, "dataset.test_path", self.test_path, allowed)
            allowed = "1, as images without names cannot be chosen so that one more moves no other"
            require(self.fraction == 1, "dataset.fraction", self.fraction, allowed)
        if self.test_path is not None:
            test = self._everything.test
            same = test is not None and test.classes == self.all_classes
            problem = f"its classes are not those of dataset.path ({', '.join(self.all_classes)})"
            reject_unless(same, "dataset.test_path", self.test_path, problem)
        self._check_sides()
        for part, listing in zip(("private", "test") if self.num_test else ("private",), self._lists, strict=False):
            counts = np.bincount(listing.labels, minlength=len(self.classes))
            empty = self.classes[int(np.argmin(counts))]
            reject_unless(counts.min() > 0, "dataset.test_fraction", self.test_fraction, f"class {empty} has no {part} image")

    def _check_sides(self) -> None:
        """Whether users lie on one side alone, and are no classes; class names are public."""
        private, test = self._lists
        sides = {"dataset.test_path": test if len(test) else None, "dataset.public_path": self._public_list}
        for key, listing in sides.items():
            if listing is None or private.users is None:
                continue
            where = getattr(self, key.removeprefix("dataset.")) or self.path
            reject_unless(listing.users is not None, key, where, "it does not say whose its images are, as dataset.path does")
            require_users_apart(private, listing, key, where)
        if private.users is not None and len(private.classes) > 1:
            pairs = set(zip(private.users, private.labels.tolist(), strict=True))
            apart = len(pairs) == len(set(private.users)) == len(private.classes)
            reject_unless(not apart, "dataset.path", self.path, "its classes are its users, and names of classes are public")

    def _check_users(self) -> None:
        named = self.user_pattern is None or not self._nameless
        reject_unless(named, "dataset.user_pattern", self.user_pattern, "its images have no names of their own")
        one = self.user_pattern is None or self.user_column is None
        reject_unless(one, "dataset.user_pattern", self.user_pattern, "dataset.user_column says whose images are already")
        users = self._everything.private.users
        if users is not None:
            key = "user_column" if self.user_pattern is None else "user_pattern"
            problem = f"it finds one user alone, {users[0]}, in all images"
            reject_unless(len(set(users)) > 1, f"dataset.{key}", getattr(self, key), problem)
            problem = "it finds a user of its own for each image; where that is right, privacy.unit=image says so"
            shared = self.unit is Unit.image or len(set(users)) < len(users)
            reject_unless(shared, f"dataset.{key}", getattr(self, key), problem)

    def assumptions(self) -> list[str]:
        if self.unit is Unit.image:
            return super().assumptions()
        key = "user_pattern" if self.user_column is None else "user_column"
        return [*super().assumptions(), f"whose an image is, as dataset.{key}={getattr(self, key)} finds it"]

    def public(self) -> SampleSet:
        assert self._public_list is not None
        samples = decode(self._public_list, self.shape, self.on_bad, reading=self.reading).samples
        reject_unless(len(samples) > 0, "dataset.public_path", self.public_path, "it holds no image that can be read")
        return samples

    def public_inputs(self) -> list[PublicInput]:
        return [] if self.public_path is None else [PublicInput("dataset.public_path", Path(self.public_path))]

    def own_public_parts(self) -> Iterator[np.ndarray]:
        if (listing := self._public_list) is None:
            return
        for start in range(0, len(listing), PART):
            rows = np.arange(start, min(start + PART, len(listing)))
            yield decode(listing[rows], self.shape, self.on_bad, reading=self.reading).samples.images

    def lists(self) -> tuple[Listing, Listing]:
        everything, test = self._everything.private, self._everything.test
        if test is not None:
            return everything, test
        held_out = np.array([uniform(name) < self.test_fraction for name in everything.chosen_by])
        return everything[np.flatnonzero(~held_out)], everything[np.flatnonzero(held_out)]

    def layout_notes(self) -> list[str]:
        notes = [f"{self.path}: {self._everything.kind}", *self._everything.notes]
        if not self._own_test and self.num_test and not self.knows_users:
            keeps = "dataset.user_pattern or dataset.user_column keeps them together"
            notes.append(f"images of one person may lie both among the private and among the test images; {keeps}")
        if len(self._everything.private.classes) == 1:
            notes.append("there is only one class, so the samples cannot be judged by a classifier that is trained on them")
        listing = self._everything.private
        if listing.users is not None and len(set(zip(listing.users, listing.labels.tolist(), strict=True))) == len(listing):
            key = "dataset.user_column" if self.user_pattern is None else "dataset.user_pattern"
            notes.append(f"no user has two images of one class: does {key} find the person, and not the number of an image?")
        return notes

    def notes(self) -> list[str]:
        return [*self.layout_notes(), *super().notes()]

    @property
    def _own_test(self) -> bool:
        return self._everything.test is not None

    @property
    def _nameless(self) -> bool:
        return self._layout.nameless

    @property
    def _usual_channels(self) -> int:
        listing = self._everything.private
        return listing.channels or (1 if listing.names[0].lower().endswith(DICOM) else 3)

    @functools.cached_property
    def _layout(self) -> Layout:
        """As it lies at `path`."""
        return layout_of(Path(self.path), self.columns)

    @functools.cached_property
    def _everything(self) -> Layout:
        """With `test_path` in the place of the path's own images for tests, and with the users that a pattern finds."""
        found = self._layout
        if self.test_path is not None:
            found = replace(found, test=list_images(Path(self.test_path), self.columns))
        if self.user_pattern is None:
            return found
        test = None if found.test is None else self._with_users(found.test, self.user_pattern)
        return replace(found, private=self._with_users(found.private, self.user_pattern), test=test)

    def _with_users(self, listing: Listing, pattern: str) -> Listing:
        users = []
        try:
            whose = re.compile(pattern)
        except re.error as error:
            raise unusable("dataset.user_pattern", pattern, f"it is no regular expression ({error})") from error
        for name in listing.names:
            match = whose.search(name)
            problem = f"it finds no user in {name}"
            reject_unless(match is not None, "dataset.user_pattern", pattern, problem)
            assert match is not None
            users.append((match.group(1) if match.re.groups else match.group()) or "")
            reject_unless(bool(users[-1]), "dataset.user_pattern", pattern, problem)
        return replace(listing, users=users)

    @functools.cached_property
    def _public_list(self) -> Listing | None:
        if self.public_path is None:
            return None
        listing = list_images(Path(self.public_path), self.columns)
        return listing if self.user_pattern is None else self._with_users(listing, self.user_pattern)
