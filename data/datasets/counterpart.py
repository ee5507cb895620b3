"""The public counterpart of a dataset: images that a public model is trained on before any private one is opened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from data.dataset import Dataset
from data.datasets.imagenet import ImageNet
from data.datasets.official import Official
from data.datasets.printed import Printed
from data.images import conform
from data.samples import SampleSet
from errors import require


class PublicName(Enum):
    none = "none"
    printed = "printed"
    svhn = "svhn"
    imagenet32 = "imagenet32"
    imagenet64 = "imagenet64"


@dataclass(kw_only=True)
class WithCounterpart(Dataset):
    public_name: PublicName = PublicName.none  # which images are its public counterpart
    public_path: str = "datasets"  # where its official files are

    def check(self) -> None:
        super().check()
        other = self.public_name.value != self.name
        require(other, "dataset.public_name", self.public_name, f"another dataset than the private one, dataset.name={self.name}")

    @property
    def num_public(self) -> int:
        return self._counterpart.num_train if self._counterpart else 0

    @property
    def public_classes(self) -> list[str]:
        return self._counterpart.classes if self._counterpart else []

    @property
    def renders_public(self) -> bool:
        return self.public_name is PublicName.printed

    def public(self) -> SampleSet:
        assert self._counterpart is not None
        return self._conformed(self._counterpart.train())

    def some_public(self) -> SampleSet:
        return self._conformed(self._counterpart.some()) if isinstance(self._counterpart, Printed) else self.public()

    def _conformed(self, samples: SampleSet) -> SampleSet:
        return SampleSet(conform(samples.images, self.shape), samples.labels, samples.num_classes)

    @property
    def _counterpart(self) -> Dataset | None:
        if self.public_name is PublicName.printed:
            return Printed()
        place: dict[str, Any] = {"name": self.public_name.value, "path": self.public_path, "class_counts": self.class_counts}
        size = {PublicName.imagenet32: 32, PublicName.imagenet64: 64}.get(self.public_name)
        if self.public_name is PublicName.none:
            return None
        found = ImageNet(**place, image_size=size) if size else Official(**place)
        found.path_key = "dataset.public_path"
        return found
