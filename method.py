"""What every method offers: a plan that opens no private image, and a run that makes of private images what is released."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import ClassCounts, Dataset
from data.private import PrivateDataset
from data.queries import Ask, noisy_answer
from data.samples import SampleSet
from errors import reject_unless, require
from models.classifiers.networks import ClassifierName
from models.classifiers.released import ReleasedClassifier
from models.features.spaces import EmbeddingName
from models.public.settings import Model, PublicModel
from privacy.config import Privacy
from privacy.mechanisms import DeclaredPublic, DiscreteLaplace, Mechanism, Spend
from privacy.noise import NoiseSource
from tracking.meter import Meter
from tracking.progress import Advance, progress
from tracking.tracker import Tracker

Made = SampleSet | ReleasedClassifier  # what a release holds


@dataclass
class Run:
    """What a running method is given besides data and model: its noise, its places, what counts its cost, and public settings."""

    dataset: Dataset
    privacy: Privacy
    noise: NoiseSource
    noise_multiplier: float | None
    seed: int
    tracker: Tracker
    checkpoints: Path
    figures: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    save_model: Callable[[Path], None] | None = None  # set by a method that releases a model beside its samples
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.checkpoints / "meter.json")

    def asking(self, private: PrivateDataset) -> Ask:
        """Who answers `Query`s: with a spend, with noise, and after a kill with the same noise."""
        return functools.partial(noisy_answer, private, self.noise, self.checkpoints)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Advance]:
        """A bar that advances; the meter is saved on the way."""
        with progress(description, total) as advance:

            def further(count: int) -> None:
                advance(count)
                self.meter.save()

            yield further


@dataclass(kw_only=True)
class Method:
    """Settings of a method. `num_samples` is the size of the set that it makes. `spends` and `run` are all that it must have."""

    name: str = "???"
    num_samples: int = 1000  # how many samples are made
    conditional: bool = True  # keep classes apart; false: samples have no class

    needs_noise = True  # whether the privacy budget sets a noise multiplier
    uses_model = True  # whether what is released depends on the public model
    protects_users = False  # whether it bounds what all images of a user change together (`SampleSet.users`), and not each image
    told = ""  # how it makes what is released, in a sentence of the README.md there

    @property
    def how_made(self) -> str:
        """`told`, and what the settings add to it."""
        return self.told

    @property
    def released_classifier(self) -> ClassifierName | None:
        """Of a method that releases a classifier and no samples, which one; everything else follows from this."""
        return None

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        """Raise InputError for settings that cannot run."""
        classes = len(dataset.classes) if self.conditional else 1
        require(
            self.num_samples >= classes, "method.num_samples", self.num_samples, f"at least one for each of {classes} classes"
        )
        if self.conditional and dataset.class_counts is ClassCounts.uniform:
            divisible = self.num_samples % classes == 0
            allowed = f"divisible by {classes} classes, unless dataset.class_counts is public, laplace or moments"
            require(divisible, "method.num_samples", self.num_samples, allowed)
        if self.conditional and dataset.class_counts is ClassCounts.laplace:
            share = privacy.class_counts_epsilon
            require(
                share is not None, "privacy.class_counts_epsilon", share, "a number, as dataset.class_counts=laplace spends it"
            )

        counted = dataset.class_counts is not ClassCounts.moments or self.takes_moments
        allowed = f"uniform, public or laplace, as method={self.name} takes no moments"
        require(counted, "dataset.class_counts", dataset.class_counts, allowed)

    @property
    def takes_moments(self) -> bool:
        """Whether `run` measures sums that hold noisy class counts: dataset.class_counts=moments needs them."""
        return False

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        """Everything that `run` will spend at this noise multiplier."""
        raise NotImplementedError

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        """`steps`, `network_calls` (forward passes of one image) and, where something is trained, `backward_calls`.

        None: nobody knows, and a plan says so.
        """
        return {"steps": None, "network_calls": None}

    def released(self, dataset: Dataset) -> int:
        """How many samples the release holds; of a classifier none."""
        return self.num_samples

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        """Bytes that `run` takes at most, at one time, besides the private images; None: nobody knows."""
        networks = model.memory()
        return None if networks is None else 2 * self.num_samples * math.prod(model.image_shape) + networks

    def training_facts(self, dataset: Dataset, model: Model) -> dict[str, int]:
        """`trainable_parameters`, and `backward_flops` of one image."""
        return {"trainable_parameters": 0, "backward_flops": 0}

    def hints(self, dataset: Dataset, model: Model, privacy: Privacy, noise_multiplier: float | None) -> list[str]:
        """What public numbers alone say of how good the release will be, in sentences for a plan and for the start of a run."""
        return []

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> Made:
        raise NotImplementedError

    def measurement(
        self, dataset: Dataset, model: PublicModel, classes: int, size: int, sigma: float, seed: int
    ) -> Callable[[Ask], Any] | None:
        """A function that asks the private images all that `run` asks; it takes the `Ask` that answers. Of a method that asks for
        sums with Gaussian noise and nothing else.

        `classes`: 1 where classes are not kept apart; `size`: the public number of units; `sigma`: the noise multiplier of all.
        `scripts.audit` attacks what is asked. None: the method asks for something else.
        """
        return None

    def embeddings(self) -> set[EmbeddingName]:
        """The embeddings that `run` asks the model for."""
        return set()

    def model_labels(self, dataset: Dataset) -> np.ndarray:
        """int64 [classes]: the label that the model is asked for, for each class of the samples."""
        return dataset.class_numbers if self.conditional else np.zeros(1, np.int64)

    def class_counts_spend(self, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        mechanism = _class_counts_mechanism(dataset, privacy)
        return [Spend("class_counts", mechanism)] if self.conditional and mechanism else []

    def class_sizes(self, private: PrivateDataset, run: Run, counted: np.ndarray | None = None) -> np.ndarray:
        """How many of `num_samples` each class gets, int64 [classes]: see `ClassCounts`. `counted`: of moments, with noise."""
        if not self.conditional:
            return np.array([self.num_samples])
        if run.dataset.class_counts is ClassCounts.moments:
            assert counted is not None
            return apportion(counted, self.num_samples)
        mechanism = _class_counts_mechanism(run.dataset, run.privacy)
        if mechanism is None:
            return np.full(private.num_classes, self.num_samples // private.num_classes)
        counts, parts = private.class_histogram("class_counts", mechanism)
        if isinstance(mechanism, DiscreteLaplace):
            counts = counts + run.noise.stream("class_counts").discrete_laplace(mechanism.epsilon / parts, len(counts))
        return apportion(np.maximum(counts, 0), self.num_samples)


def _class_counts_mechanism(dataset: Dataset, privacy: Privacy) -> Mechanism | None:
    if dataset.class_counts is ClassCounts.laplace:
        assert privacy.class_counts_epsilon is not None
        return DiscreteLaplace(privacy.class_counts_epsilon)
    return DeclaredPublic() if dataset.class_counts is ClassCounts.public else None


def apportion(weights: Sequence[int] | np.ndarray, total: int) -> np.ndarray:
    """Whole shares of `total` in proportion to `weights` (largest remainder), at least one each; int64, sums to `total`."""
    weights = np.asarray(weights, float)
    weights = weights if weights.sum() > 0 else np.ones(len(weights))
    free = np.ones(len(weights), bool)  # the others get one
    while True:
        exact = np.where(free, (total - (~free).sum()) * weights / max(weights[free].sum(), 1e-300), 1.0)
        if (exact >= 1).all():
            break
        free &= exact >= 1
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    return shares


_ONE_MAKES = "python -m scripts.pretrain_public trains a model on public images, and method=dp_moments needs none"


def require_public_weights(method: Method, model: Model) -> None:
    """For methods that use the public model as it is."""
    problem = f"method={method.name} needs public weights; {_ONE_MAKES}"
    reject_unless(model.pretrained is not None, "model.pretrained", model.pretrained, problem)
    require(not model.untrained_labels, "model.new_labels", True, f"false, as method={method.name} needs the labels as they are")


def require_matching_labels(method: Method, dataset: Dataset, model: Model) -> None:
    """For methods that ask the model for its label c to get class c of the whole dataset."""
    classes = int(method.model_labels(dataset).max()) + 1
    allowed = f"at least one for each of {classes} classes for method={method.name}"
    require(model.labels >= classes, "model.labels", model.labels, allowed)


def require_matching_shape(method: Method, dataset: Dataset, model: Model) -> None:
    """For methods that train the model on private images. Others take a model of any size."""
    makes, wanted = ("×".join(str(side) for side in shape) for shape in (model.image_shape, dataset.shape))
    sized = getattr(model, "image_size", None) in (None, dataset.shape[0])
    or_else = _ONE_MAKES if sized else f"model.image_size={dataset.shape[0]}, or another model: {_ONE_MAKES}"
    problem = f"it makes {makes}, dataset={dataset.name} has {wanted}, and method={method.name} needs the same; {or_else}"
    reject_unless(model.image_shape == dataset.shape, "model", model.name, problem)


def require_large_enough(method: Method, dataset: Dataset, model: Model) -> None:
    """For methods that release what a model makes: its images are not smaller or less coloured than the private ones."""
    makes, private = ("×".join(str(side) for side in shape) for shape in (model.image_shape, dataset.shape))
    enough = all(made >= wanted for made, wanted in zip(model.image_shape, dataset.shape, strict=True))
    reject_unless(
        enough,
        "model",
        model.name,
        f"it makes {makes}, dataset={dataset.name} has {private}, and method={method.name} needs at least that; {_ONE_MAKES}",
    )
