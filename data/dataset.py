"""What every dataset offers: public facts as properties, and private, public and test images on request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from data.samples import SampleSet
from errors import require


class ClassCounts(Enum):
    """How a conditional method learns how many images each class has; every dataset states one."""

    uniform = "uniform"  # it does not: all classes get equally many samples, and the counts are never read
    public = "public"  # the exact counts are declared to be public knowledge, and the certificate says so
    laplace = "laplace"  # the counts are read with discrete Laplace noise, which is in the ledger


@dataclass(kw_only=True)
class Dataset:
    """Settings of a dataset; opening images is what the methods do, nothing here reads a file before they are called."""

    name: str = MISSING
    class_counts: ClassCounts = MISSING

    # Public facts. The number of private images is taken as public, and the certificate says so.
    @property
    def num_private(self) -> int:
        raise NotImplementedError

    @property
    def num_public(self) -> int:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        raise NotImplementedError

    @property
    def classes(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        """Before a run opens anything: files are there, or are downloaded where that was asked for; InputError otherwise."""

    def private(self) -> SampleSet:
        raise NotImplementedError

    def public(self) -> SampleSet:
        """Public images like the private ones, where `num_public` is not 0."""
        raise NotImplementedError

    def test(self) -> SampleSet:
        raise NotImplementedError

    def check(self) -> None:
        """Raise InputError for settings that cannot be used; opens no private image."""
        require(self.class_counts in ClassCounts, "dataset.class_counts", self.class_counts, "one of uniform, public, laplace")

    def facts(self) -> dict:
        return {
            "name": self.name,
            "n_private": self.num_private,
            "n_private_is": "taken as public",
            "n_public": self.num_public,
            "shape": list(self.shape),
            "classes": self.classes,
        }
