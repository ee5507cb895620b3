"""Downstream utility: train classifiers on the samples, test them on real images, once, at the end.

A classifier that was released is tested likewise; nothing is trained then.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from data.dataset import Dataset, subset
from data.images import to_network
from data.samples import SampleSet
from errors import require
from eval.evaluator import Cost, EvaluationContext, Evaluator
from eval.membership import auc
from models.classifiers.networks import Classifier
from models.classifiers.released import ReleasedClassifier
from models.classifiers.training import Recipe, accuracy, balanced, logits, right, train
from models.features.spaces import Spaces
from models.passes import embed_in_passes
from models.public.settings import Model
from privacy.noise import NoiseStream
from tracking.progress import Advance, progress

PASS_ROWS = 512


@dataclass(kw_only=True)
class Downstream(Recipe, Evaluator):
    """Classifiers trained on the samples, tested on the real test split; mean and spread over `seeds` trainings."""

    judges_classifiers = True

    seeds: int = 1  # classifiers, each with its own start and order, for a spread
    ensemble: int = 1  # above 1: so many classifiers are trained at least, and the mean of their logits is judged too
    sizes: list[int] = field(default_factory=list)  # numbers of samples to train on, besides all of them
    pretrain_steps: int = 0  # on the public images and their classes, before the samples
    choose_from: list[float] = field(default_factory=list)  # learning rates: the best on held out samples is taken
    choose_steps: list[int] = field(default_factory=list)  # numbers of steps, likewise; with both, every pair is tried
    holdout: float = 0.1  # share of the samples that a choice is made on

    @property
    def trainings(self) -> int:
        return max(self.seeds, self.ensemble)

    @property
    def candidates(self) -> list[Recipe]:
        rates, steps = self.choose_from or [self.learning_rate], self.choose_steps or [self.steps]
        return [replace(self, learning_rate=rate, steps=number) for rate, number in product(rates, steps)]

    @property
    def needs_test(self) -> bool:
        return True

    def check(self, key: str, dataset: Dataset, model: Model, spaces: Spaces) -> None:
        self.check_recipe(key)
        require(self.seeds >= 1, f"{key}.seeds", self.seeds, "1 or more")
        require(self.ensemble >= 1, f"{key}.ensemble", self.ensemble, "1 (off) or more")
        require(self.pretrain_steps >= 0, f"{key}.pretrain_steps", self.pretrain_steps, "0 (off) or more")
        if self.pretrain_steps:
            allowed = f"0, as dataset={dataset.name} has no public images of 2 classes or more"
            known = dataset.num_public > 0 and len(dataset.public_classes) > 1
            require(known, f"{key}.pretrain_steps", self.pretrain_steps, allowed)
        require(all(size >= 1 for size in self.sizes), f"{key}.sizes", self.sizes, "numbers of samples that are 1 or more")
        for name in ("choose_from", "choose_steps"):
            values = getattr(self, name)
            positive = all(0 < value < np.inf for value in values)
            require(positive, f"{key}.{name}", values, "finite numbers above 0")
        require(0 < self.holdout < 1, f"{key}.holdout", self.holdout, "above 0 and below 1")

    def check_sizes(self, key: str, dataset: Dataset, num_samples: int) -> None:
        require(
            all(size <= num_samples for size in self.sizes),
            f"{key}.sizes",
            self.sizes,
            f"at most the {num_samples} samples that there are",
        )

    def check_classifier(self, key: str) -> None:
        allowed = "{}, as a classifier is released and tested, and none is trained on samples"
        require(not self.sizes, f"{key}.sizes", self.sizes, allowed.format("empty"))
        require(self.ensemble == 1, f"{key}.ensemble", self.ensemble, allowed.format("1"))
        for name in ("choose_from", "choose_steps"):
            require(not getattr(self, name), f"{key}.{name}", getattr(self, name), allowed.format("empty"))

    def prepare(self, dataset: Dataset) -> None:
        if self.pretrain_steps:
            dataset.some_public()

    def cost(self, dataset: Dataset, model: Model, spaces: Spaces, num_samples: int) -> Cost:
        if not num_samples:  # nothing to train on: a classifier is tested
            return Cost(0.0, dataset.num_test * math.prod(dataset.shape))
        flops, kept = self.step_cost(dataset.shape, max(2, len(dataset.classes)))
        public = 2 * dataset.num_public * math.prod(dataset.shape) if self.pretrain_steps else 0
        return Cost(flops * self._steps(longest=True), kept + public)

    def evaluate(self, context: EvaluationContext) -> Iterator[tuple[str, float]]:
        if isinstance(context.judged, ReleasedClassifier):
            test = context.test
            score = logits(context.judged.network, test, context.device)
            yield from self._tested(context.judged.name.value, "", [score], test)
            return
        samples, name = context.samples, self.classifier.value
        if samples.num_classes < 2:
            return  # samples without classes train no classifier
        self.check_sizes("eval.downstream", context.dataset, len(samples))
        with progress(f"{self.classifier.title} on the samples", self._steps(longest=False)) as advance:
            chosen, on_holdout, trained = self._train(context, advance)
        test = context.test  # nothing is trained or chosen from here on
        for size, networks in trained.items():
            scores = [logits(network, test, context.device) for network in networks]
            yield from self._tested(name, "" if size is None else f"_at={size}", scores, test)
        if on_holdout is not None:
            yield f"{name}/holdout_accuracy", on_holdout
            yield f"{name}/chosen_learning_rate", chosen.learning_rate
            yield f"{name}/chosen_steps", float(chosen.steps)

    def _tested(self, name: str, at: str, scores: list[np.ndarray], test: SampleSet) -> Iterator[tuple[str, float]]:
        """Of the logits of each classifier; `at`: the end of the numbers' names."""
        mean, spread = mean_and_spread([right(score, test) for score in scores])
        yield f"{name}/accuracy{at}", mean
        yield f"{name}/accuracy_spread{at}", spread
        if not at:
            yield f"{name}/accuracy_seeds", float(len(scores))
        if self.ensemble > 1:
            yield f"{name}/ensemble_accuracy{at}", right(np.mean(scores[: self.ensemble], axis=0), test)
        for kind, values in beside_accuracy(scores, test).items():
            mean, spread = mean_and_spread(values)
            yield f"{name}/{kind}{at}", mean
            yield f"{name}/{kind}_spread{at}", spread

    def _train(
        self, context: EvaluationContext, advance: Advance
    ) -> tuple[Recipe, float | None, dict[int | None, list[Classifier]]]:
        """The recipe, its accuracy on held out samples where it was chosen, and the classifiers for each number of samples."""
        samples, fit = context.samples, self._fit(context, advance)
        choosing = bool(self.choose_from or self.choose_steps)
        chosen, on_holdout = self._choose(context, fit) if choosing else (self, None)
        trained: dict[int | None, list[Classifier]] = {}
        for size in (None, *self.sizes):
            part = samples if size is None else samples[subset(samples.labels, size, stratified=True)]
            trained[size] = [fit(part, chosen, seed=context.seed + i).cpu() for i in range(self.trainings)]
        return chosen, on_holdout, trained

    def _fit(self, context: EvaluationContext, advance: Advance) -> Callable[..., Classifier]:
        fit = functools.partial(train, device=context.device, advance=advance)
        if not self.pretrain_steps:
            return fit
        recipe = replace(self, steps=self.pretrain_steps)
        return functools.partial(fit, start=fit(context.public, recipe, seed=context.seed, stream="eval/public"))

    def select(self, context: EvaluationContext, private: SampleSet, noise: NoiseStream, epsilon: float) -> dict[str, Any]:
        """The `learning_rate` and `steps` that permute-and-flip takes, by how many private images each candidate has right.

        epsilon-DP: a unit adds at most 1 to each count, of several images in parts, and an image goes through a network in passes
        where it moves no other's answer.
        """
        with progress("choosing on private images", sum(recipe.steps for recipe in self.candidates)) as advance:
            fit = self._fit(context, advance)
            networks = [fit(context.samples, recipe, seed=context.seed) for recipe in self.candidates]
        counts = [_units_right(network, private, context.device) for network in networks]
        chosen = self.candidates[noise.permute_and_flip(counts, epsilon)]
        return {"learning_rate": chosen.learning_rate, "steps": chosen.steps}

    def right_of(self, context: EvaluationContext, images: SampleSet) -> int:
        """How many of these a classifier has right that was trained on the samples; as in `select`, a unit adds at most 1."""
        choosing = bool(self.choose_from or self.choose_steps)
        with progress("a score of the samples", self._steps(longest=False)) as advance:
            fit = self._fit(context, advance)
            chosen = self._choose(context, fit)[0] if choosing else self
            return _units_right(fit(context.samples, chosen, seed=context.seed), images, context.device)

    def _choose(self, context: EvaluationContext, fit: Callable[..., Classifier]) -> tuple[Recipe, float]:
        """The candidate that is best on held out samples, the first of equals. Samples alone are looked at."""
        samples = context.samples
        kept, held = split(samples, self.holdout)
        scores = [accuracy(fit(kept, recipe, seed=context.seed), held, context.device) for recipe in self.candidates]
        best = int(np.argmax(scores))
        return self.candidates[best], scores[best]

    def _steps(self, longest: bool) -> int:
        """Of all trainings; those after a choice are as long as the longest candidate, or as the first."""
        steps = [recipe.steps for recipe in self.candidates]
        tried = sum(steps) if self.choose_from or self.choose_steps else 0
        final = max(steps) if longest else steps[0]
        return self.pretrain_steps + tried + self.trainings * (1 + len(self.sizes)) * final


def _units_right(network: Classifier, images: SampleSet, device: torch.device) -> int:
    """Of a user's several images each counts in part."""
    answer = functools.partial(_answer, network, device)
    scores = embed_in_passes(images.images, PASS_ROWS, images.num_classes, answer)
    correct = scores.argmax(1) == images.labels
    return int(images.whole_shares[correct].sum() // images.parts)


@torch.inference_mode()
def _answer(network: Classifier, device: torch.device, images: np.ndarray) -> torch.Tensor:
    return network.to(device).eval()(to_network(images, device))


def split(samples: SampleSet, holdout: float) -> tuple[SampleSet, SampleSet]:
    """Two parts, the second the share `holdout`, with the classes in the same shares: always the same rows."""
    size = min(len(samples) - 1, max(1, round((1 - holdout) * len(samples))))
    kept = subset(samples.labels, size, stratified=True)
    return samples[kept], samples[np.setdiff1d(np.arange(len(samples)), kept)]


def beside_accuracy(scores: list[np.ndarray], test: SampleSet) -> dict[str, list[float]]:
    """Of each classifier's logits [N, classes], what a test set with many images of one class does not flatter.

    `balanced_accuracy`; of two classes that have 2 images or more each also `auc`, the chance that the logits put an image of
    the second class above one of the first.
    """
    found = {"balanced_accuracy": [balanced(score, test) for score in scores]}
    first, second = (test.labels == label for label in (0, 1))
    if test.num_classes == 2 and min(first.sum(), second.sum()) >= 2:
        # A network that has diverged answers nan, which is no order: 0.
        margins = [np.nan_to_num(score[:, 1].astype(np.float64) - score[:, 0]) for score in scores]
        found["auc"] = [auc(margin[second], margin[first])[0] for margin in margins]
    return found


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
