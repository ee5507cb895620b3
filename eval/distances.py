"""Evaluators that compare samples and real images in a feature space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from errors import require
from eval.evaluator import Cost, EvaluationContext, InFeatureSpace, Reference, Space, one_or_several
from eval.frechet import Gaussian, fit_gaussian, gaussian_distance
from eval.inception_score import inception_score
from eval.kernel import kernel_distance
from eval.manifold import coverage_of_balls
from models.api import Classifies
from models.features.spaces import EmbeddingName, Spaces
from models.public.settings import Model
from models.seeds import numpy_rng

DOUBLE = 2  # what an operation in float64 takes, in those that a plan counts


@dataclass(kw_only=True)
class Frechet(InFeatureSpace):
    """Fréchet distance to the real images of one split: `fid/train` in Inception's space, `frechet/pixels_train` in others.

    Samples of another size than the real images were brought to it by `data.images.conform` (PIL's antialiased bicubic); FID's
    network resizes to 299×299 itself, by pytorch-fid's bilinear without antialiasing. No other filter is used.

    `…_n`: how many real images; a distance to fewer is larger. `…_floor`: between two halves of them. `…/class=NAME`: to the real
    images of one class (DP-Diffusion, Fig. 11b), where there are two or more of it on both sides.
    """

    floor: bool = True  # the same between two halves of the real images too
    per_class: bool = False  # to the real images of each class too

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        super().check(key, dataset, model, spaces)
        require(not self.per_class or len(dataset.classes) > 1, f"{key}.per_class", "true", "false, as there is one class")

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        def step(space: Space) -> Cost:
            dim = float(spaces.cost(space.embedding, dataset.shape)[1])
            distances = 1 + self.floor + (len(dataset.classes) if self.per_class else 0)
            covariances = (1 + self.per_class) * num_samples + (1 + self.floor + self.per_class) * space.num_real(dataset)
            return Cost(DOUBLE * dim**2 * covariances + 30 * dim**3 * distances, 6 * 8 * int(dim) ** 2 + 2**26)

        return self.feature_cost(dataset, spaces, num_samples).then(map(step, self.compared))

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        for space in self.compared:
            yield from self._evaluate(context, space)

    def _evaluate(self, context: EvaluationContext, space: Space) -> Iterator[tuple[str, float]]:
        name, samples = space.distance_name("frechet", in_inception="fid"), context.features(space.embedding)
        real = context.gaussian(space.embedding, space.reference)
        yield name, gaussian_distance(fit_gaussian(samples), real)
        yield f"{name}_n", float(real.count)
        if self.floor:
            a, b = (context.gaussian(space.embedding, space.reference, rows) for rows in context.halves(space.reference))
            yield f"{name}_floor", gaussian_distance(a, b)
        if self.per_class:
            for label, found, there in _classes(context, samples, space):
                yield f"{name}/class={label}", gaussian_distance(found, there)


def _classes(context: EvaluationContext, samples: np.ndarray, space: Space) -> Iterator[tuple[str, Gaussian, Gaussian]]:
    if context.samples.num_classes < 2:
        return  # samples without classes
    for label, name in enumerate(context.dataset.classes):
        mine = np.flatnonzero(context.samples.labels == label)
        there = np.flatnonzero(context.real(space.reference).labels == label)
        if min(len(mine), len(there)) >= 2:
            yield name, fit_gaussian(samples, mine), context.gaussian(space.embedding, space.reference, there)


@dataclass(kw_only=True)
class Kernel(InFeatureSpace):
    """Kernel distance to the real images of one split: KID, `kid/train`, in Inception's space, `kernel/pixels_train` in others.

    `…_standard_error`; `…_n`: how many real images; `…_floor`: between two halves of them, 0 but for chance.
    """

    enabled: bool = False
    subsets: int = 100  # whose mean is taken
    subset_size: int = 1000  # images of each side in a subset
    floor: bool = True  # the same between two halves of the real images too

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        super().check(key, dataset, model, spaces)
        require(self.subsets >= 2, f"{key}.subsets", self.subsets, "2 or more")
        require(self.subset_size >= 2, f"{key}.subset_size", self.subset_size, "2 or more")

    def check_sizes(self, key: str, dataset: Dataset, num_samples: int) -> None:
        self._check_fewest(key, min(num_samples, self.fewest_real(dataset) // (1 + self.floor)))

    def _check_fewest(self, key: str, fewest: int) -> None:
        allowed = f"false, as it needs 4 samples and 4 real images (in each half), and there are {fewest}"
        require(fewest >= 4, f"{key}.enabled", "true", allowed)

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        def step(space: Space) -> Cost:
            dim = spaces.cost(space.embedding, dataset.shape)[1]
            size = min(self.subset_size, num_samples // 2, space.num_real(dataset) // 2)
            kernels = 3 * (1 + self.floor) * self.subsets
            return Cost(DOUBLE * 2.0 * dim * size**2 * kernels, 8 * (4 * size * dim + 3 * size**2))

        return self.feature_cost(dataset, spaces, num_samples).then(map(step, self.compared))

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        for space in self.compared:
            yield from self._evaluate(context, space)

    def _evaluate(self, context: EvaluationContext, space: Space) -> Iterator[tuple[str, float]]:
        name = space.distance_name("kernel", in_inception="kid")
        samples, real = context.features(space.embedding), context.features(space.embedding, space.reference)
        pairs = {"": (samples, real)}
        if self.floor:
            a, b = context.halves(space.reference)
            pairs["_floor"] = real[a], real[b]
        self._check_fewest("eval.kernel", min(len(features) for pair in pairs.values() for features in pair))
        for part, (a, b) in pairs.items():
            rng = numpy_rng(context.seed, f"eval/kernel{part}")
            distance, error = kernel_distance(a, b, subsets=self.subsets, subset_size=self.subset_size, rng=rng)
            yield f"{name}{part}", distance
            yield f"{name}{part}_standard_error", error
        yield f"{name}_n", float(len(real))


@dataclass(kw_only=True)
class Manifold(InFeatureSpace):
    """Precision, recall, density and coverage: `precision/pixels_train`, …, each with `…_n`, the number of real images.

    `…_ceiling`: what one half of the real images reaches against the other; few images in many dimensions do not reach 1.
    """

    enabled: bool = False
    k: int = 5  # of Naeem et al.; Kynkäänniemi et al. take 3
    ceiling: bool = True  # the same of one half of the real images against the other too

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        super().check(key, dataset, model, spaces)
        require(self.k >= 1, f"{key}.k", self.k, "1 or more")

    def check_sizes(self, key: str, dataset: Dataset, num_samples: int) -> None:
        self._check_fewest(key, min(num_samples, self.fewest_real(dataset) // (1 + self.ceiling)))

    def _check_fewest(self, key: str, fewest: int) -> None:
        allowed = f"below {fewest}, the least number of samples and real images (in each half)"
        require(self.k < fewest, f"{key}.k", self.k, allowed)

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        def step(space: Space) -> Cost:
            n, m, dim = float(num_samples), float(space.num_real(dataset)), spaces.cost(space.embedding, dataset.shape)[1]
            pairs = n * n + m * m + n * m + self.ceiling * 3 * (m / 2) ** 2
            return Cost(DOUBLE * 2 * dim * pairs, 2**28)

        return self.feature_cost(dataset, spaces, num_samples).then(map(step, self.compared))

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        for space in self.compared:
            yield from self._evaluate(context, space)

    def _evaluate(self, context: EvaluationContext, space: Space) -> Iterator[tuple[str, float]]:
        samples, real = context.features(space.embedding), context.features(space.embedding, space.reference)
        halves = [real[rows] for rows in context.halves(space.reference)] if self.ceiling else []
        self._check_fewest("eval.manifold", min(len(features) for features in (samples, real, *halves)))
        found = coverage_of_balls(real, samples, self.k)
        reached = coverage_of_balls(halves[0], halves[1], self.k) if self.ceiling else {}
        for measure, value in found.items():
            yield f"{measure}/{space.name}", value
            yield f"{measure}/{space.name}_n", float(len(real))
            if measure in reached:
                yield f"{measure}/{space.name}_ceiling", reached[measure]


@dataclass(kw_only=True)
class InceptionScore(InFeatureSpace):
    """`inception_score/mean` of the samples, by Inception's classes; `class_score/mean` by those of the public extractor.

    `…/spread` over `splits` parts. `…/train`: what the real images of that split score; samples are compared to nothing.
    """

    enabled: bool = False
    splits: int = 10  # of the samples, whose mean and spread are given

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        allowed = "inception or public_features, which have classes, or a list of both"
        classes = {EmbeddingName.inception, EmbeddingName.public_features}
        asked = one_or_several(f"{key}.embedding", self.embedding, EmbeddingName)
        require(classes.issuperset(asked), f"{key}.embedding", self.embedding, allowed)
        super().check(key, dataset, model, spaces)
        require(self.splits >= 1, f"{key}.splits", self.splits, "1 or more")

    def check_sizes(self, key: str, dataset: Dataset, num_samples: int) -> None:
        self._check_fewest(key, min(num_samples, self.fewest_real(dataset)))

    def _check_fewest(self, key: str, fewest: int) -> None:
        require(self.splits <= fewest, f"{key}.splits", self.splits, f"at most {fewest}, for one image each")

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        return self.feature_cost(dataset, spaces, num_samples)

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        told = set()
        for embedding, reference in self.compared:
            group = "inception_score" if embedding is EmbeddingName.inception else "class_score"
            if embedding not in told:
                mean, spread = self._score(context, embedding)
                yield f"{group}/mean", mean
                yield f"{group}/spread", spread
                told.add(embedding)
            yield f"{group}/{reference.value}", self._score(context, embedding, reference)[0]

    def _score(self, context: EvaluationContext, embedding: EmbeddingName, split: Reference | None = None) -> tuple[float, float]:
        """Mean and spread, of the samples or of the real images of a split."""
        network, features = context.embeddings[embedding], context.features(embedding, split)
        assert isinstance(network, Classifies)
        self._check_fewest("eval.inception_score", len(features))
        order = numpy_rng(context.seed, "eval/inception_score").permutation(len(features))
        return inception_score(network.logits(features)[order], self.splits)
