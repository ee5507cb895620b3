"""Private images with canaries among them, and a method's start on them.

The adversary of an audit is the one that the ledger's epsilon is about: it knows all other private images and all public
randomness, chooses the canaries, and sees what leaves every mechanism.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.dataset import Dataset
from data.samples import SampleSet
from models.seeds import numpy_rng
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.config import Privacy
from privacy.noise import NoiseSource


@dataclass(kw_only=True)
class Planted(Dataset):
    """The private images of `base`, and after them those of `canaries` that are in. Its public size is as if all were."""

    base: Dataset
    canaries: SampleSet  # images, or users with `canaries.users` from 0 on
    included: np.ndarray  # bool [canaries]

    @classmethod
    def of(cls, base: Dataset, canaries: SampleSet, included: np.ndarray) -> Planted:
        made = cls(name=base.name, class_counts=base.class_counts, base=base, canaries=canaries, included=included)
        made.unit = base.unit
        return made

    @property
    def num_train(self) -> int:
        return self.base.num_private_images + len(self.canaries)

    @property
    def knows_users(self) -> bool:
        return self.base.knows_users

    @property
    def num_users(self) -> int:
        return self.base.num_users + len(self.included)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.base.shape

    @property
    def num_public(self) -> int:
        return self.base.num_public

    @property
    def classes(self) -> list[str]:
        return self.base.classes

    @property
    def all_classes(self) -> list[str]:
        return self.base.all_classes

    @property
    def public_classes(self) -> list[str]:
        return self.base.public_classes

    @property
    def class_numbers(self) -> np.ndarray:
        """A canary's label is its own, and the network knows it by that number."""
        return np.arange(self.canaries.num_classes)

    def private(self) -> SampleSet:
        its = np.arange(len(self.canaries)) if self.canaries.users is None else self.canaries.users
        ours, chosen = self.base.private(), self.canaries[np.flatnonzero(self.included[its])]
        images, labels = np.concatenate([ours.images, chosen.images]), np.concatenate([ours.labels, chosen.labels])
        users = None
        if ours.users is not None:
            assert chosen.users is not None
            users = np.concatenate([ours.users, ours.users.max(initial=-1) + 1 + chosen.users])
        return SampleSet(images, labels, self.canaries.num_classes, users=users)


def of_users(images: np.ndarray, labels: np.ndarray, num_classes: int, each: int | None) -> SampleSet:
    """Canaries: `each` images one after the other are a user's; None: each image is one by itself."""
    users = None if each is None else np.arange(len(images)) // each
    return SampleSet(images, labels, num_classes, users=users)


def patterns(count: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Random pixels, like nothing private: uint8 [count, *shape]."""
    return numpy_rng(seed, "audit/canaries").integers(0, 256, (count, *shape)).astype(np.uint8)


def games(
    dataset: Dataset,
    canary: SampleSet,
    privacy: Privacy,
    plan: Plan,
    repetitions: int,
    noise: NoiseSource,
    folder: Path,
    seed: int,
) -> Iterator[tuple[bool, Session]]:
    """Starts on the private images, every other one with the canary: whether it is in, and what a method is started with.

    Each has fresh noise, and a folder that is there until the next one; what is public, `seed` too, is kept.
    """
    for repetition in range(repetitions):
        inside = repetition % 2 == 1
        key = noise.stream(f"audit/repetition={repetition}").bytes(32)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            data = Planted.of(dataset, canary, np.array([inside]))
            yield inside, open_session(data, privacy, plan, NoiseSource(key), Path(place), seed)


def open_session(dataset: Planted, privacy: Privacy, plan: Plan, noise: NoiseSource, folder: Path, seed: int) -> Session:
    """What a method is started with, and the ledger that says what it cost. `folder` takes ledger, checkpoints and figures."""
    classes = dataset.canaries.num_classes
    return Session.open(dataset, privacy, plan, noise, folder, num_classes=classes, fewer=True, seed=seed)
