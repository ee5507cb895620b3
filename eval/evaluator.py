"""What every evaluator offers, and what it is given. They yield `(name, value)`, know no tracker, and run after the release."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from data.dataset import Dataset
from data.samples import SampleSet
from errors import reject_unless, require
from eval.cache import content_key, kept_gaussian
from eval.frechet import Gaussian, fit_gaussian
from models.api import Embedding
from models.classifiers.released import ReleasedClassifier
from models.features.spaces import EmbeddingName, Spaces
from models.public.settings import Model
from models.seeds import numpy_rng

Choice = TypeVar("Choice", bound=Enum)


class Reference(Enum):
    """The real images that samples are compared to."""

    train = "train"
    test = "test"
    private = "private"  # what a method is given: train, or a `dataset.fraction` of it


@dataclass
class EvaluationContext:
    """What is judged, and what it is judged against. Real images and features are opened where they are first asked for."""

    judged: SampleSet | ReleasedClassifier
    dataset: Dataset
    embeddings: Mapping[EmbeddingName, Embedding]
    device: torch.device
    seed: int
    figures: Path  # under internal/
    private_figures: bool = False  # whether pictures of private images may be drawn
    checkpoints: Path | None = None  # of the run, where it is known
    model: Model | None = None  # settings of the public model, to build one that was not trained since
    spaces: Spaces | None = None  # what `embeddings` are
    cache: Path | None = None  # under internal/: where statistics of real images are kept between runs
    _features: dict[tuple[EmbeddingName, Reference | None], np.ndarray] = field(default_factory=dict)

    @property
    def samples(self) -> SampleSet:
        """Of an evaluator that does not judge classifiers."""
        assert isinstance(self.judged, SampleSet)
        return self.judged

    @cached_property
    def train(self) -> SampleSet:
        return self.dataset.train()

    @cached_property
    def test(self) -> SampleSet:
        return self.dataset.test()

    @cached_property
    def public(self) -> SampleSet:
        """Where the dataset has public images."""
        return self.dataset.some_public()

    @cached_property
    def private(self) -> SampleSet:
        return self.train if self.dataset.fraction == 1 else self.dataset.private()

    def real(self, split: Reference) -> SampleSet:
        if split is Reference.private:
            return self.private
        return self.train if split is Reference.train else self.test

    def features(self, embedding: EmbeddingName, split: Reference | None = None) -> np.ndarray:
        """float32 [N, D] of the samples, or of the real images of one split; kept, as several evaluators want the same."""
        if split is Reference.private and self.dataset.fraction == 1:
            split = Reference.train
        key = embedding, split
        if key not in self._features:
            images = self.samples.images if split is None else self.real(split).images
            self._features[key] = self.embeddings[embedding].embed(images)
        return self._features[key]

    def gaussian(self, embedding: EmbeddingName, split: Reference, rows: np.ndarray | None = None) -> Gaussian:
        """Of the features of a split's real images, or of these rows of them. Kept: a second run needs no features."""
        images = self.real(split).images
        key = content_key(images if rows is None else images[rows], embedding.value, self.embeddings[embedding].identity)
        return kept_gaussian(self.cache, key, lambda: fit_gaussian(self.features(embedding, split), rows))

    def halves(self, split: Reference) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of two disjoint halves of a split's real images: the same ones in every run, whatever its seed."""
        order = numpy_rng(0, "eval/halves").permutation(len(self.real(split)))
        middle = len(order) // 2
        return np.sort(order[:middle]), np.sort(order[middle : 2 * middle])


@dataclass
class Cost:
    """What an evaluator will take, above what the run holds anyway, and above the network of its embedding, which many share."""

    flops: float  # nan: nobody knows
    bytes: int

    def then(self, steps: Iterable[Cost]) -> Cost:
        """With steps one after the other, each of which forgets what the one before took."""
        steps = list(steps)
        return Cost(self.flops + sum(step.flops for step in steps), self.bytes + max(step.bytes for step in steps))


@dataclass(kw_only=True)
class Evaluator:
    """`evaluate` is all that an evaluator must have."""

    enabled: bool = True  # whether it runs

    judges_classifiers = False  # whether `evaluate` takes a classifier that was released, and not samples alone

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        """Raise InputError for settings that cannot be used; `key` is where they are, such as eval.frechet."""

    @property
    def needs_test(self) -> bool:
        """Whether `evaluate` asks for test images."""
        return False

    def check_sizes(self, key: str, dataset: Dataset, num_samples: int) -> None:
        """Raise InputError where there will be too few samples or real images."""

    def check_classifier(self, key: str) -> None:
        """Raise InputError for settings that ask of a released classifier what samples alone can give."""

    def prepare(self, dataset: Dataset) -> None:
        """Before a run opens private images: raise InputError where public ones that `evaluate` asks for cannot be opened."""

    def embeddings(self) -> set[EmbeddingName]:
        """The embeddings that `evaluate` asks for."""
        return set()

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost | None:
        """None: nobody knows, and a plan says so."""
        return None

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        raise NotImplementedError


def require_embedding(key: str, name: EmbeddingName, dataset: Dataset, model: Model, spaces: Spaces) -> None:
    """InputError where the evaluator at `key` cannot have this embedding of the dataset's images."""
    problem = f"model={model.name} has none; use pixels, set eval.features, or {key}.enabled=false"
    reject_unless(name in spaces.names, f"{key}.embedding", name, problem)
    spaces.require_channels(f"{key}.embedding", name, dataset.shape[2])


@dataclass(kw_only=True)
class InEmbedding(Evaluator):
    """Works in the space of an embedding."""

    embedding: EmbeddingName = EmbeddingName.public_features  # the space that images are compared in

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        require_embedding(key, self.embedding, dataset, model, spaces)

    def embeddings(self) -> set[EmbeddingName]:
        return {self.embedding}


class Space(NamedTuple):
    """Where samples are compared, and to which real images."""

    embedding: EmbeddingName
    reference: Reference

    @property
    def name(self) -> str:
        """`public_features_train`: for a number's name."""
        return f"{self.embedding.value}_{self.reference.value}"

    def distance_name(self, elsewhere: str, in_inception: str) -> str:
        """`fid/train`: a distance that has a name of its own in Inception's space; `frechet/pixels_train` in others."""
        if self.embedding is EmbeddingName.inception:
            return f"{in_inception}/{self.reference.value}"
        return f"{elsewhere}/{self.name}"

    def num_real(self, dataset: Dataset) -> int:
        if self.reference is Reference.private:
            return dataset.num_private_images
        return dataset.num_train if self.reference is Reference.train else dataset.num_test


@dataclass(kw_only=True)
class InFeatureSpace(Evaluator):
    """Compares samples and real images of a split in the space of an embedding; of several, each with each, in their order.

    The settings are `Any`, as OmegaConf knows no "one or a list of them".
    """

    embedding: Any = "public_features"  # an EmbeddingName, or a list of them
    reference: Any = "train"  # a Reference, or a list of them

    def __post_init__(self) -> None:
        """A list of one is that one, so that it is the same run."""
        for key in ("embedding", "reference"):
            match getattr(self, key):
                case [one]:
                    setattr(self, key, one)

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        for name in one_or_several(f"{key}.embedding", self.embedding, EmbeddingName):
            require_embedding(key, name, dataset, model, spaces)
        one_or_several(f"{key}.reference", self.reference, Reference)

    @property
    def references(self) -> list[Reference]:
        return one_or_several("reference", self.reference, Reference)

    @property
    def compared(self) -> list[Space]:
        names = one_or_several("embedding", self.embedding, EmbeddingName)
        return [Space(name, reference) for name in names for reference in self.references]

    @property
    def needs_test(self) -> bool:
        return Reference.test in self.references

    def embeddings(self) -> set[EmbeddingName]:
        return {space.embedding for space in self.compared}

    def feature_cost(self, dataset: Dataset, spaces: Spaces, num_samples: int) -> Cost:
        """Of the features of samples and real images, which evaluators in the same space share."""
        total = Cost(0.0, 0)
        for name in self.embeddings():
            flops, dim = spaces.cost(name, dataset.shape)
            images = num_samples + sum(space.num_real(dataset) for space in self.compared if space.embedding is name)
            total = Cost(total.flops + images * flops, total.bytes + 4 * images * dim)
        return total

    def fewest_real(self, dataset: Dataset) -> int:
        """Of the splits that samples are compared to."""
        return min(space.num_real(dataset) for space in self.compared)


def one_or_several(key: str, value: Any, kind: type[Choice]) -> list[Choice]:
    """Members of `kind` from one of them or a list, each itself or its name. InputError at `key` for anything else."""
    names = [getattr(one, "value", one) for one in (value if isinstance(value, list | tuple) else [value])]
    known = [member.value for member in kind]
    fits = len(names) > 0 and all(name in known for name in names) and len({*map(str, names)}) == len(names)
    require(fits, key, value, f"one of {', '.join(known)}, or a list of some, each once")
    return [kind(name) for name in names]
