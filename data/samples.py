"""A set of images with labels, and its file format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from disk import whole_file

PARTS = 1 << 20  # of a user's one vote: whole numbers, as discrete noise hides nothing else; rounding loses a millionth


def read_labels(path: Path) -> np.ndarray:
    """Of a sample file, without its images; SampleFileError where they cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["labels"]
    except Exception as error:  # a foreign file may make anything of its reader
        raise SampleFileError(f"{path}: not a readable npz ({error})") from error


class SampleFileError(ValueError):
    """A sample file that is not what it should be: the message names the file, the field and what is wrong."""


@dataclass
class SampleSet:
    """uint8 images [N, H, W, C] (C = 1 or 3), int64 labels [N] in 0 … num_classes - 1.

    `public_labels` int64 [N] is the conditioning that a public model was given, where there is one; `provenance` says in
    plain values where the samples come from.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    public_labels: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    users: np.ndarray | None = None  # int64 [N]: whose each image is; None: each image is a unit of privacy by itself

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"images: {images.dtype} {list(images.shape)} is not uint8 [N, H, W, 1 or 3]")
        for name, values in (("labels", labels), ("public_labels", self.public_labels), ("users", self.users)):
            if values is not None and (values.dtype != np.int64 or values.shape != (len(images),)):
                raise ValueError(f"{name}: {values.dtype} {list(values.shape)} is not int64 [{len(images)}]")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(f"labels: not all inside 0 … {self.num_classes - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> SampleSet:
        public = None if self.public_labels is None else self.public_labels[rows]
        users = None if self.users is None else self.users[rows]
        return SampleSet(self.images[rows], self.labels[rows], self.num_classes, public, self.provenance, users)

    @property
    def num_units(self) -> int:
        """Of privacy: images, or users."""
        return len(self) if self.units is None else len(self.units)

    @cached_property
    def units(self) -> list[np.ndarray] | None:
        """The rows of each user's images, users in the order of their numbers; None: each image is a unit."""
        if self.users is None:
            return None
        order = np.argsort(self.users, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.users[order])) + 1) if len(order) else []

    @property
    def images_of_unit(self) -> np.ndarray:
        """int64 [N]: of how many images each image's unit is."""
        if self.users is None:
            return np.ones(len(self), np.int64)
        _, mine, counts = np.unique(self.users, return_inverse=True, return_counts=True)
        return counts[mine].astype(np.int64)

    @property
    def parts(self) -> int:
        """Whole parts of a unit that its images share."""
        return 1 if self.users is None else PARTS

    @property
    def whole_shares(self) -> np.ndarray:
        """int64 [N]: how many of its unit's parts are an image's; those of a unit are `parts` together at most."""
        return self.parts // self.images_of_unit

    def shares(self) -> np.ndarray:
        """float64 [N]: what an image is of its unit, so that those of a unit are 1 together, and never more."""
        return 1.0 / self.images_of_unit

    def save(self, path: Path) -> None:
        """Write npz: `images`, `labels`, `public_labels` if any, `num_classes`, `provenance` (JSON). Whole or not at all."""
        arrays: dict[str, Any] = {"images": self.images, "labels": self.labels, "num_classes": np.int64(self.num_classes)}
        if self.public_labels is not None:
            arrays["public_labels"] = self.public_labels
        with whole_file(path) as file:
            np.savez_compressed(file, provenance=np.array(json.dumps(self.provenance)), **arrays)

    def digest(self) -> str:
        """SHA-256 of pixels and labels, and of users where they are the units."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.users is not None:
            digest.update(np.ascontiguousarray(self.users).data)
        return digest.hexdigest()

    @classmethod
    def load(cls, path: Path) -> SampleSet:
        """Read back and check; SampleFileError for a missing, truncated or wrong file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except Exception as error:  # a foreign file may make anything of its reader
            raise SampleFileError(f"{path}: not a readable npz ({error})") from error
        if missing := {"images", "labels"} - arrays.keys():
            raise SampleFileError(f"{path}: no {' and no '.join(sorted(missing))}")
        labels = arrays["labels"]
        try:
            classes = int(arrays["num_classes"] if "num_classes" in arrays else labels.max() + 1 if labels.size else 0)
            provenance = json.loads(str(arrays.get("provenance", "{}")))
            return cls(arrays["images"], labels, classes, arrays.get("public_labels"), provenance)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise SampleFileError(f"{path}: {error}") from error
