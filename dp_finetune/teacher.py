"""`method=dp_teacher`: moments draw images, and a classifier that DP-SGD has trained on the private images labels them.

An image of moments comes with the class that it was drawn for, which is often wrong where classes overlap. A teacher knows
better. That is the idea of PATE (Papernot et al. 2017), with one teacher by DP-SGD (Abadi et al. 2016) instead of votes of many.
It starts from weights that the same images have trained, as it would after pre-training on public ones (De et al. 2022,
Section 5). What it says of images that are released anyway costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import softmax

from data.dataset import Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from dp_finetune.classifier import TrainsClassifier
from errors import require
from method import Run
from models.classifiers.networks import ClassifierName
from models.classifiers.training import Recipe, logits, train
from models.public.settings import Model, PublicModel
from models.seeds import numpy_rng
from moments.measure import BasisName
from moments.warm_up import MomentsFirst
from privacy.config import Privacy
from privacy.mechanisms import Spend
from tracking import ranks

ENOUGH = 10_000  # private images or users: 60,000 were enough, 4,708 and 1,437 were not
TOO_FEW = "A teacher of {:,} private {} knows little: below 10,000 images other methods taught more (docs/teacher.md)."


@dataclass(kw_only=True)
class Candidates(MomentsFirst):
    """Samples of moments, which train the teacher first, and are what it labels."""

    epsilon: float | None = None  # of the budget for moments; a number
    num_samples: int = 60_000  # drawn from the moments
    steps: int = 600  # of the teacher's ordinary training on them
    learning_rate: float = 0.05  # of that training


@dataclass(kw_only=True)
class DPTeacher(TrainsClassifier):
    """`warm_up.epsilon` of the budget goes to moments, the rest to the teacher."""

    protects_users = True
    told = (
        "A classifier was trained on the private images by clipped and noisy steps (DP-SGD), and said which class each image "
        "shows that was drawn from normal distributions."
    )

    name: str = "dp_teacher"
    num_samples: int = 10_000
    classifier: ClassifierName = ClassifierName.tanh_cnn  # the teacher
    confidence: float = 0.8  # of the teacher, from which it is taken at its word
    warm_up: Candidates = field(default_factory=Candidates)

    def __post_init__(self) -> None:
        self.uses_model = self.warm_up.basis is BasisName.latents

    @property
    def how_made(self) -> str:
        return self.warm_up.told_before(self.told)

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        self.check_classifier(dataset)
        self.warm_up.check_first("method.warm_up", dataset, model, privacy, self.conditional)
        require(0 <= self.confidence < 1, "method.confidence", self.confidence, "0 (of all images) or more, and below 1")
        require(self.warm_up.steps >= 1, "method.warm_up.steps", self.warm_up.steps, "1 or more")
        candidates, allowed = self.warm_up.num_samples, f"{self.num_samples} (method.num_samples) or more, to choose from"
        require(candidates >= self.num_samples, "method.warm_up.num_samples", candidates, allowed)

    @property
    def first(self) -> Recipe:
        """How samples of moments train the teacher, in the ordinary way, before DP-SGD does."""
        warm_up = self.warm_up
        return replace(
            self.recipe,
            steps=warm_up.steps,
            batch_size=warm_up.batch_size,
            learning_rate=warm_up.learning_rate,
            augmentations=[],
        )

    @property
    def takes_moments(self) -> bool:
        return True

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [*self.warm_up.spends(dataset, privacy), *super().spends(noise_multiplier, dataset, privacy)]

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        """The public model is not called: its autoencoder alone is, for latents."""
        trained = self.trained_views(dataset) + self.warm_up.trained_images
        return {"steps": self.steps, "network_calls": 0, "backward_calls": trained}

    def hints(self, dataset: Dataset, model: Model, privacy: Privacy, noise_multiplier: float | None) -> list[str]:
        found = self.warm_up.hints(dataset, privacy, self.conditional)
        return found if dataset.num_private >= ENOUGH else [TOO_FEW.format(dataset.num_private, dataset.unit.plural), *found]

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        training, autoencoder = super().memory(dataset, model), model.memory() if self.uses_model else 0
        if training is None or autoencoder is None:
            return None
        first = self.first.step_cost(dataset.shape, len(dataset.classes))[1]
        return max(training, first) + autoencoder + self.warm_up.moments_memory(dataset, self.warm_up.num_samples) + 2**28

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        moment = self.warm_up.measure(private, model, run, self.conditional)
        assert moment is not None
        with run.meter.part("sampling"):
            drawn = self.warm_up.draw(moment, run.seed)
            drawn = drawn[numpy_rng(run.seed, "dp_teacher/order").permutation(len(drawn))]
        first = self.first
        with run.meter.part("warm-up"), run.progress("warm-up", first.steps) as advance:
            teacher = train(drawn, first, seed=run.seed, device=run.device, advance=advance, stream="dp_teacher/warm_up")
        teacher.load_state_dict(ranks.broadcast(teacher.state_dict()))  # processes may round differently
        self.fit_classifier(teacher, private, run)
        sizes = self.class_sizes(private, run, moment.class_counts)
        with run.meter.part("labelling"):
            rows = taken(probabilities(logits(teacher, drawn, run.device), drawn.labels), sizes, self.confidence)
        return SampleSet(drawn.images[rows], np.repeat(np.arange(len(sizes)), sizes), len(sizes))


def probabilities(scores: np.ndarray, drawn_for: np.ndarray) -> np.ndarray:
    """float [N, K]; of a row that is not finite, as steps too long leave, the class that the candidate was drawn for."""
    finite = np.isfinite(scores).all(1, keepdims=True)
    return np.where(finite, softmax(np.where(finite, scores, 0.0), axis=1), np.eye(scores.shape[1])[drawn_for])


def taken(probable: np.ndarray, sizes: np.ndarray, confidence: float) -> np.ndarray:
    """int64 [sum of sizes]: which of N candidates each class gets, class by class, none twice. `probable` float [N, K].

    Of those that are most probably of the class, and that as surely as `confidence`, the first ones. A class with too few of
    them gets those that nobody took and that are most probably of it.
    """
    best, sure = probable.argmax(1), probable.max(1) >= confidence
    own = [np.flatnonzero((best == label) & sure)[:size] for label, size in enumerate(sizes)]
    free = np.ones(len(probable), bool)
    free[np.concatenate(own)] = False
    for label, size in enumerate(sizes):
        missing, rows = size - len(own[label]), np.flatnonzero(free)
        more = rows[np.argsort(-probable[rows, label], kind="stable")[:missing]]
        free[more] = False
        own[label] = np.concatenate([own[label], more])
    return np.concatenate(own)
