"""`method=dp_classifier`: a classifier trained by DP-SGD on the private images themselves, what tables call DP-SGD.

De et al. (2022), as Ghalebikesabi et al. (2023), Table 5, use it: groups instead of batches are normalised, and the gradients
of an example's K augmented copies are averaged before clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from data.augmentations import Augmentation, augmented
from data.dataset import Dataset
from data.images import to_network
from data.private import PrivateDataset
from dp_finetune.dpsgd import DPSGD
from dp_finetune.objective import view_seed
from errors import require
from method import Run
from models.classifiers.networks import Classifier, ClassifierName, Norm
from models.classifiers.released import ReleasedClassifier
from models.classifiers.training import Recipe
from models.public.settings import Model, PublicModel
from models.seeds import derive
from privacy.config import Privacy
from privacy.noise import NoiseSource


@dataclass
class LabelledViews:
    """K augmented copies of each of B examples, flattened example by example into B·K rows."""

    x: torch.Tensor  # [B·K, C, H, W]
    labels: torch.Tensor  # int64 [B·K]
    examples: int  # B

    @property
    def augmult(self) -> int:
        return len(self.x) // self.examples

    def part(self, rows: slice, examples: int = 1) -> LabelledViews:
        return LabelledViews(self.x[rows], self.labels[rows], examples)

    def losses(self, network: Any, bfloat16: bool = False) -> torch.Tensor:
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=bfloat16):
            logits = network(self.x)
        return F.cross_entropy(logits.float(), self.labels, reduction="none")


@dataclass
class Classification:
    """Cross-entropy. Augmentation is seeded by (key, step, example), the key being the run's secret: see `Objective`."""

    augmult: int
    augmentations: Sequence[Augmentation]
    noise: NoiseSource
    device: torch.device

    def encode(self, images: np.ndarray) -> torch.Tensor:
        return to_network(images, self.device)

    def views(self, x: torch.Tensor, labels: torch.Tensor, examples: Sequence[int], step: int) -> LabelledViews:
        rng = torch.Generator(x.device)
        copies = [
            augmented(
                image.expand(self.augmult, *image.shape[-3:]), self.augmentations, rng.manual_seed(view_seed(self.noise, step, n))
            )
            for image, n in zip(x, examples, strict=True)
        ]
        told = labels.to(x.device).reshape(len(x), -1).expand(-1, self.augmult)
        return LabelledViews(torch.cat(copies), told.flatten(), len(x))


@dataclass(kw_only=True)
class TrainsClassifier(DPSGD):
    """What methods that train a classifier on private images have in common."""

    classifier: ClassifierName = ClassifierName.wrn16_4  # the network that is trained

    def check_classifier(self, dataset: Dataset) -> None:
        self.check_training(dataset)
        large = self.classifier is not ClassifierName.tanh_cnn or min(dataset.shape[:2]) >= 4
        require(large, "method.classifier", self.classifier, "another, as this one needs images of 4×4 or more")
        require(self.conditional, "method.conditional", self.conditional, f"true, as method={self.name} learns classes")
        require(len(dataset.classes) > 1, "dataset", dataset.name, "one with at least 2 classes")

    @property
    def recipe(self) -> Recipe:
        return Recipe(classifier=self.classifier, norm=Norm.group, batch_size=2)

    def training_facts(self, dataset: Dataset, model: Model) -> dict[str, int]:
        flops = self.recipe.step_cost(dataset.shape, len(dataset.classes))[0] / self.recipe.batch_size
        return {"trainable_parameters": self._parameters(dataset), "backward_flops": int(flops)}

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        return self.training_memory(self._parameters(dataset), self._bytes_per_view(dataset), dataset)

    def fit_classifier(self, network: Classifier, private: PrivateDataset, run: Run) -> None:
        """In place, under the run's budget; it ends with averaged weights."""
        shape, classes, device = run.dataset.shape, run.dataset.classes, run.device

        def some_views(examples: int) -> LabelledViews:
            rows = examples * self.augmult
            x = torch.randn(rows, shape[2], shape[0], shape[1], device=device)
            return LabelledViews(x, torch.zeros(rows, dtype=torch.int64, device=device), examples)

        objective = Classification(self.augmult, self.augmentations, run.noise, device)
        numbers = np.arange(len(classes))
        self.fit_network(network, objective, some_views, self._bytes_per_view(run.dataset), private, run, numbers)
        network.eval()

    def _parameters(self, dataset: Dataset) -> int:
        with torch.device("meta"):  # shapes without weights
            network = self.recipe.network(dataset.shape[2], len(dataset.classes))
        return sum(p.numel() for p in network.parameters())

    def _bytes_per_view(self, dataset: Dataset) -> int:
        return self.recipe.step_cost(dataset.shape, len(dataset.classes))[1]


@dataclass(kw_only=True)
class DPClassifier(TrainsClassifier):
    """Makes no samples: what it trains is the release. It needs no public model, and no public images."""

    uses_model = False
    protects_users = True
    told = "A classifier was trained on the private images themselves by clipped and noisy steps (DP-SGD): it is the release."

    name: str = "dp_classifier"
    num_samples: int = 0  # none are made

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        """Sizes of classes are of samples: `dataset.class_counts` may be any here, and nothing is spent for it."""
        self.check_classifier(dataset)
        require(self.num_samples == 0, "method.num_samples", self.num_samples, f"0, as method={self.name} makes none")

    @property
    def released_classifier(self) -> ClassifierName:
        return self.classifier

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        """The public model is not called; the classifier is trained."""
        return {"steps": self.steps, "network_calls": 0, "backward_calls": self.trained_views(dataset)}

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> ReleasedClassifier:
        shape, classes = run.dataset.shape, run.dataset.classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(run.seed, "dp_classifier/initial weights"))
            network = self.recipe.network(shape[2], len(classes)).to(run.device)
        self.fit_classifier(network, private, run)
        return ReleasedClassifier(network, self.classifier, self.recipe.norm, shape, classes)
