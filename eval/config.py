"""Which evaluators run: `eval=…`, and `eval.<evaluator>.<key>=…`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from errors import require
from eval.discriminator import Discriminator
from eval.distances import Frechet, InceptionScore, Kernel, Manifold
from eval.downstream import Downstream
from eval.evaluator import Evaluator
from eval.intrinsic import IntrinsicDimension
from eval.membership import Membership
from eval.pictures import Pictures
from models.features.spaces import EmbeddingName, Spaces
from models.public.settings import Model


@dataclass(kw_only=True)
class Evaluation:
    frechet: Frechet = field(default_factory=Frechet)
    kernel: Kernel = field(default_factory=Kernel)
    manifold: Manifold = field(default_factory=Manifold)
    inception_score: InceptionScore = field(default_factory=InceptionScore)
    downstream: Downstream = field(default_factory=Downstream)
    discriminator: Discriminator = field(default_factory=Discriminator)
    membership: Membership = field(default_factory=Membership)
    intrinsic_dimension: IntrinsicDimension = field(default_factory=IntrinsicDimension)
    pictures: Pictures = field(default_factory=Pictures)
    features: str | None = None  # a name under models/weights, or a folder; null: the dataset's, or else the model's
    private_figures: bool = False  # pictures that show private images, under internal/ and watermarked
    cache: str | None = "runs/internal/reference_statistics"  # of real images, between runs; null: nothing is kept

    @property
    def evaluators(self) -> dict[str, Evaluator]:
        every = {name.name: getattr(self, name.name) for name in fields(self)}
        return {name: part for name, part in every.items() if isinstance(part, Evaluator) and part.enabled}

    def of_classifiers(self) -> Evaluation:
        """Of a release that is a classifier: without the evaluators that judge samples."""
        off: dict[str, Any] = {
            name: replace(part, enabled=False) for name, part in self.evaluators.items() if not part.judges_classifiers
        }
        return replace(self, **off)

    def embeddings(self) -> set[EmbeddingName]:
        return {name for evaluator in self.evaluators.values() for name in evaluator.embeddings()}

    def spaces(self, dataset: Dataset, model: Model) -> Spaces:
        """Where samples are judged, whichever model made them."""
        if self.features is not None:
            return replace(model.spaces, features=self.features, key="eval.features")
        return model.spaces if dataset.features is None else replace(model.spaces, features=dataset.features)

    @property
    def cache_folder(self) -> Path | None:
        return None if self.cache is None else Path(self.cache)

    def prepare(self, dataset: Dataset) -> None:
        """Before a run opens private images: raise InputError where public ones that are asked for cannot be opened."""
        for evaluator in self.evaluators.values():
            evaluator.prepare(dataset)

    def check(self, dataset: Dataset, model: Model) -> None:
        parts = Path(os.path.normpath(self.cache)).parts if self.cache is not None else ("internal",)
        allowed = "null, or a folder under one that is named internal and not under release, as it is of private images"
        require("internal" in parts and "release" not in parts, "eval.cache", self.cache, allowed)
        spaces = self.spaces(dataset, model)
        for name, evaluator in self.evaluators.items():
            evaluator.check(f"eval.{name}", dataset, model, spaces)
            there = dataset.num_test > 0 or not evaluator.needs_test
            require(there, f"eval.{name}.enabled", "true", f"false, as dataset={dataset.name} has no test images")
