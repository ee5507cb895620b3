"""The floor and the ceiling of every table, from the same code path as the methods between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from errors import reject_unless
from method import Method, Run, require_large_enough, require_matching_labels, require_public_weights
from models.public.settings import Model, PublicModel
from models.seeds import numpy_rng
from privacy.config import Privacy
from privacy.mechanisms import NonPrivate, Spend


@dataclass(kw_only=True)
class PublicOnly(Method):
    """`method=public_only`: samples of the public model for the public label of the same number; ε = 0 but for class counts."""

    name: str = "public_only"
    needs_noise = False
    protects_users = True  # of private images it reads class counts at most
    told = "A public model drew these; no private image had a part in them."

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        require_public_weights(self, model)
        require_large_enough(self, dataset, model)
        require_matching_labels(self, dataset, model)

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return self.class_counts_spend(dataset, privacy)

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        calls = model.calls()
        return {"steps": 0, "network_calls": None if calls is None else self.num_samples * calls}

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        sizes = self.class_sizes(private, run)
        labels = np.repeat(np.arange(len(sizes)), sizes)
        everything = numpy_rng(run.seed, "public_only/labels").integers(model.api.num_labels, size=len(labels))
        public_labels = self.model_labels(run.dataset)[labels] if self.conditional else everything
        with run.meter.part("sampling"), run.progress("public model: images", len(labels)) as advance:
            images = model.api.random(public_labels, stream="public_only", advance=advance)
        return SampleSet(images, labels, len(sizes), public_labels)


@dataclass(kw_only=True)
class RealData(Method):
    """`method=real_data`: the private images themselves; ε = ∞, so nothing is released."""

    name: str = "real_data"
    needs_noise = False
    protects_users = True  # it bounds nothing, and its certificate says so

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        pass  # num_samples is the dataset's

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [Spend("real_data", NonPrivate())]

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        return {"steps": 0, "network_calls": 0}

    def released(self, dataset: Dataset) -> int:
        return dataset.num_private_images

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        samples = private.spend("real_data", NonPrivate())
        reject_unless(
            len(samples) > 0,
            "dataset",
            run.dataset.name,
            f"it has no images that can be read, and method={self.name} has no others",
        )
        return samples
