"""The one handle to private images: no ledger entry, no pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.samples import SampleSet
from errors import InputError
from privacy.ledger import Ledger
from privacy.mechanisms import Mechanism, Unit


class PrivateDataset:
    """Private images behind a ledger. `size`, of units, and `num_classes` are public; images are loaded at the first spend.

    `fewer`: there may be less than `size` of them; rates and divisors stay those of `size`, whatever their number.
    """

    def __init__(
        self,
        load: Callable[[], SampleSet],
        size: int,
        num_classes: int,
        ledger: Ledger,
        fewer: bool = False,
        unit: Unit = Unit.image,
    ):
        self.size, self.num_classes, self._ledger, self._fewer, self._unit = size, num_classes, ledger, fewer, unit
        self._load = load
        self._samples: SampleSet | None = None

    def spend(self, purpose: str, mechanism: Mechanism) -> SampleSet:
        """The images, for one use of `mechanism`, which is in the ledger on disk before this returns.

        The caller owes the mechanism: a statistic of sensitivity 1 leaves its hands only with that noise on it.
        """
        self._ledger.spend(purpose, mechanism)
        if self._samples is None:
            samples = self._load()
            found, known = samples.num_units, (samples.users is not None) == (self._unit is Unit.user)
            if not known:
                raise ValueError(f"private images come with users where the unit is a user, and it is {self._unit.value}")
            wrong_size = found > self.size or (found < self.size and not self._fewer)
            if wrong_size or samples.num_classes != self.num_classes:  # the true numbers stay unsaid
                declared = f"{self.size} {self._unit.plural} with images of {self.num_classes} classes"
                raise InputError(f"dataset is declared as {declared}, and is not that.", "dataset")
            self._samples = samples
        return self._samples

    def class_histogram(self, purpose: str, mechanism: Mechanism) -> tuple[np.ndarray, int]:
        """Images per class in whole parts, int64 [num_classes], and how many parts a unit has: it moves all bins together by
        that many at most."""
        samples = self.spend(purpose, mechanism)
        counts = np.bincount(samples.labels, samples.whole_shares, minlength=self.num_classes)
        return counts.astype(np.int64), samples.parts  # exact: whole numbers below 2^53
