"""`method=dp_merf` and `dp_mepf`: the noisy mean of public features of private images, and generators of images that have it."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from data.dataset import Dataset
from data.private import PrivateDataset
from data.queries import Ask, Query
from data.samples import SampleSet
from errors import reject_unless, require, unusable
from mean_embedding.features import (
    PASS_ROWS,
    FeatureMap,
    MeanEmbedding,
    PerceptualMoments,
    exact_sums,
    fourier_features,
    usual_distance,
)
from mean_embedding.generator import LARGEST_SIDE, GeneratorTraining, fresh, generate, train
from method import Method, Run
from models.api import Perceives
from models.features.spaces import EmbeddingName
from models.flops import forward_cost
from models.public.settings import Model, PublicModel
from models.seeds import derive
from moments.estimate import positive_counts
from privacy.config import Privacy
from privacy.mechanisms import Gaussian, Spend

PURPOSE = "mean_embedding"
OF_DISTANCE = 0.5  # the length scale: on printed digits it taught 66 %, the whole distance 61 (docs/mean_embedding.md)


@dataclass(kw_only=True)
class MatchesMeanEmbedding(GeneratorTraining, Method):
    """What both methods are, but for their features. The private images are read once."""

    told = "The mean of public features of the private images was measured with noise, once; image generators were trained to it."

    num_samples: int = 10_000

    @abstractmethod
    def features(self, dataset: Dataset, model: PublicModel, seed: int) -> FeatureMap:
        """Of public images, weights and constants alone."""

    @abstractmethod
    def feature_cost(self, dataset: Dataset, model: Model) -> tuple[float, int, int | None]:
        """FLOPs of the features of one image, how many they are, and bytes of their network and a batch; None: nobody knows."""

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        self.check_training("method", self._classes(dataset))
        few = self.num_generators <= self.num_samples
        require(few, "method.num_generators", self.num_generators, f"at most method.num_samples={self.num_samples}")
        small = max(dataset.shape[:2]) <= LARGEST_SIDE
        require(small, "dataset", dataset.name, f"one of images up to {LARGEST_SIDE}×{LARGEST_SIDE} for method={self.name}")

    @property
    def takes_moments(self) -> bool:
        return True  # noisy class counts are in the sums

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [*self.class_counts_spend(dataset, privacy), Spend(PURPOSE, Gaussian(noise_multiplier))]

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        """The public model is not called; generators are trained."""
        steps = self.num_generators * self.steps
        return {"steps": steps, "network_calls": 0, "backward_calls": steps * self.batch_size}

    def training_facts(self, dataset: Dataset, model: Model) -> dict[str, int]:
        parameters, forward, _ = self._generator_cost(dataset)
        return {
            "trainable_parameters": self.num_generators * parameters,
            "backward_flops": 3 * int(forward + self.feature_cost(dataset, model)[0]),
        }

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        parameters, _, kept = self._generator_cost(dataset)
        _, size, network = self.feature_cost(dataset, model)
        if network is None:
            return None
        features = 24 * size * (2 * self._classes(dataset) + 2 * PASS_ROWS + self.batch_size)
        samples = 2 * self.num_samples * math.prod(dataset.shape)
        return features + network + samples + 16 * self.num_generators * parameters + self.batch_size * kept + 2**27

    def measurement(
        self, dataset: Dataset, model: PublicModel, classes: int, size: int, sigma: float, seed: int
    ) -> Callable[[Ask], MeanEmbedding]:
        """What `run` asks of private images, for an audit."""
        return functools.partial(measure_in, self.features(dataset, model, seed), classes, size, sigma)

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        assert run.noise_multiplier is not None
        classes, shape, sigma = private.num_classes if self.conditional else 1, run.dataset.shape, run.noise_multiplier
        features = self.features(run.dataset, model, run.seed)
        with run.meter.part("mean embedding"):
            found = measure_in(features, classes, private.size, sigma, run.asking(private))
        counts = positive_counts(found.counts, found.noise, private.size)
        sizes = self.class_sizes(private, run, counts)
        # The first has the seed and the checkpoint of a run of one generator.
        seeds = [run.seed, *(derive(run.seed, f"mean_embedding/generator={i}") for i in range(1, self.num_generators))]
        generators = [fresh(self, shape, classes, seed, features.embedding.device) for seed in seeds]
        with run.meter.part("generator"), run.progress(f"{self.name}: generator", len(seeds) * self.steps) as advance:
            for i, (generator, seed) in enumerate(zip(generators, seeds, strict=True)):
                done, kept = 0, run.checkpoints / f"generator{i or ''}.pt"
                for step in train(generator, features, counts / counts.sum(), found.means, self, seed, kept):
                    advance(step - done)
                    done = step
                advance(self.steps - done)  # of one that was trained before a kill
        labels = np.repeat(np.arange(len(sizes)), sizes)
        images = np.empty((len(labels), *shape), np.uint8)
        with run.meter.part("sampling"), run.progress(f"{self.name}: samples", len(labels)) as advance:
            for i, (generator, seed) in enumerate(zip(generators, seeds, strict=True)):
                images[i :: len(seeds)] = generate(generator, labels[i :: len(seeds)], shape, seed, advance)
        return SampleSet(images, labels, len(sizes))

    def _classes(self, dataset: Dataset) -> int:
        return len(dataset.classes) if self.conditional else 1

    def _generator_cost(self, dataset: Dataset) -> tuple[int, int, int]:
        """Parameters, FLOPs of a forward pass of one image, and bytes that it keeps for the backward pass."""
        with torch.device("meta"):
            generator = self.generator(dataset.shape, self._classes(dataset)).eval()
            flops, alive = forward_cost(lambda: generator.body(torch.empty(1, self.code_size + self._classes(dataset))))
        return sum(p.numel() for p in generator.parameters()), flops, 4 * alive


def measure_in(features: FeatureMap, classes: int, size: int, sigma: float, ask: Ask) -> MeanEmbedding:
    """Of `size` images, which is public, by one Gaussian mechanism of noise multiplier `sigma`."""
    query = Query(PURPOSE, lambda samples: exact_sums(features, samples, classes))
    return MeanEmbedding.of(ask(query, sigma), size, sigma)


@dataclass(kw_only=True)
class DPMERF(MatchesMeanEmbedding):
    """Random Fourier features of pixels (Harder, Adamczewski & Park 2021). It needs no public model, and no public images."""

    uses_model = False
    protects_users = True

    name: str = "dp_merf"
    num_features: int = 2000  # D
    length_scale: float | None = None  # of the kernel, pixels being 0 … 1; null: half the `usual_distance`
    kernel_scales: list[float] = field(default_factory=lambda: [1.0])  # of which the kernel is the mean, in length scales

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        even = 2 <= self.num_features <= 100_000 and self.num_features % 2 == 0
        require(even, "method.num_features", self.num_features, "an even number from 2 to 100000")
        scale = self.length_scale
        require(scale is None or 1e-3 <= scale <= 1e3, "method.length_scale", scale, "from 0.001 to 1000, or null")
        scales = self.kernel_scales
        some = 1 <= len(scales) <= self.num_features // 2 and all(1e-2 <= s <= 1e2 for s in scales)
        require(some, "method.kernel_scales", scales, f"1 to {self.num_features // 2} numbers (num_features/2) from 0.01 to 100")

    def embeddings(self) -> set[EmbeddingName]:
        return {EmbeddingName.pixels}

    def features(self, dataset: Dataset, model: PublicModel, seed: int) -> FeatureMap:
        pixels = model.embeddings[EmbeddingName.pixels]  # where the run computes
        assert isinstance(pixels, Perceives)
        scale = self.length_scale or OF_DISTANCE * usual_distance(dataset, seed)
        return fourier_features(pixels, dataset.shape, self.num_features, [scale * s for s in self.kernel_scales], seed)

    def feature_cost(self, dataset: Dataset, model: Model) -> tuple[float, int, int | None]:
        weights = self.num_features // 2 * math.prod(dataset.shape)
        return 2.0 * weights, self.num_features, 12 * weights


@dataclass(kw_only=True)
class DPMEPF(MatchesMeanEmbedding):
    """First and second moments of public perceptual features (Harder et al. 2023)."""

    protects_users = True

    name: str = "dp_mepf"
    steps: int = 300
    embedding: EmbeddingName = EmbeddingName.public_features  # whose moments are asked for
    square_share: float = 0.5  # s of `mean_embedding.features`: of the budget, of 1/σ², for second moments; 0: first ones alone

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        known = self.embedding in model.spaces.names
        reject_unless(known, "method.embedding", self.embedding, f"model={model.name} has none; use pixels")
        model.spaces.require_channels("method.embedding", self.embedding, dataset.shape[2])
        require(0 <= self.square_share <= 1, "method.square_share", self.square_share, "from 0 to 1")

    def embeddings(self) -> set[EmbeddingName]:
        return {self.embedding}

    def features(self, dataset: Dataset, model: PublicModel, seed: int) -> FeatureMap:
        embedding = model.embeddings[self.embedding]
        if not isinstance(embedding, Perceives):
            raise unusable("method.embedding", self.embedding, "no generator can be trained through it; use pixels")
        return PerceptualMoments(embedding, dataset.shape, self.square_share)

    def feature_cost(self, dataset: Dataset, model: Model) -> tuple[float, int, int | None]:
        spaces, shape = model.spaces, dataset.shape
        flops, size = spaces.cost(self.embedding, shape)[0], 2 * spaces.perceived(self.embedding, shape)
        large = self.embedding in (EmbeddingName.inception, EmbeddingName.clip)  # a backward pass of which nobody has measured
        return flops, size, None if large else 2 * spaces.memory(self.embedding, shape)
