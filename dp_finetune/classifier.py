"""A classifier trained by DP-SGD on the private images themselves: what tables call DP-SGD, beside classifiers of samples.

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
from models.classifiers.training import Recipe
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
class DPClassifier(DPSGD):
    """Makes no samples: what it trains is the release."""

    protects_users = True

    name: str = "dp_classifier"
    num_samples: int = 0
    classifier: ClassifierName = ClassifierName.wrn16_4

    def check_classifier(self, dataset: Dataset, privacy: Privacy) -> None:
        """Raise InputError for settings that cannot run."""
        self.check_training(dataset)
        require(self.num_samples == 0, "method.num_samples", self.num_samples, f"0, as method={self.name} makes none")
        require(len(dataset.classes) > 1, "dataset", dataset.name, "one with at least 2 classes")

    @property
    def recipe(self) -> Recipe:
        return Recipe(classifier=self.classifier, norm=Norm.group, batch_size=2)

    def bytes_per_view(self, dataset: Dataset) -> int:
        return self.recipe.step_cost(dataset.shape, len(dataset.classes))[1]

    def train(self, private: PrivateDataset, run: Run, device: torch.device) -> Classifier:
        """A classifier under the run's budget, its weights averaged."""
        shape, classes = run.dataset.shape, len(run.dataset.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(run.seed, "dp_classifier/initial weights"))
            network = self.recipe.network(shape[2], classes).to(device)

        def some_views(examples: int) -> LabelledViews:
            rows = examples * self.augmult
            x = torch.randn(rows, shape[2], shape[0], shape[1], device=device)
            return LabelledViews(x, torch.zeros(rows, dtype=torch.int64, device=device), examples)

        objective = Classification(self.augmult, self.augmentations, run.noise, device)
        self.fit_network(network, objective, some_views, self.bytes_per_view(run.dataset), private, run, np.arange(classes))
        return network.eval()
