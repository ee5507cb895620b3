"""Warm-up: a share of the budget goes to moments first, and what is drawn from them prepares the public model for the rest.

Only the moments see private images, under one Gaussian mechanism. Everything here is post-processing of their noisy sums: samples
are drawn, and a network is trained on them as on any public images. They are blurred, so they are shown to it at noisy timesteps,
where coarse structure is learned; at the clean ones it goes on seeing public images, and keeps their sharp strokes, or, where the
dataset has none of the same classes, is left as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.dataset import Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from errors import require
from method import Run, apportion
from models.api import Denoiser
from models.costs import TrainingCosts
from models.diffusion.timesteps import Interval
from models.public.pretraining import PretrainingConfig, pretrain
from models.public.settings import Model, PublicModel
from models.seeds import numpy_rng
from moments.measure import Moment, Moments, Prior, measure
from privacy.config import Privacy
from privacy.gaussian import gaussian_noise_multiplier
from privacy.mechanisms import Spend


@dataclass(kw_only=True)
class MomentsFirst(Moments):
    """`epsilon`: of the moments, at the run's δ, which the rest of the budget is without; null: no moments."""

    epsilon: float | None = None  # of the budget for moments; null: none
    num_samples: int = 20_000  # drawn from the moments
    steps: int = 600  # of ordinary training on them; 0: none
    batch_size: int = 128  # samples in a step of that training
    learning_rate: float = 1e-3  # of that training

    optional = False  # whether the method works without

    def check_first(self, key: str, dataset: Dataset, model: Model, privacy: Privacy, conditional: bool) -> None:
        """What a method needs that takes moments first."""
        most = privacy.epsilon
        below = self.epsilon is not None and 1e-3 <= self.epsilon < (most or 1e6)
        needed = "0.001 or more, and below privacy.epsilon"
        require(below, f"{key}.epsilon", self.epsilon, f"{needed}, or null" if self.optional else needed)
        self.check_moments(key, dataset, model, conditional)
        for name, least in (("num_samples", len(dataset.classes)), ("steps", 0), ("batch_size", 1)):
            require(getattr(self, name) >= least, f"{key}.{name}", getattr(self, name), f"{least} or more")
        require(0 < self.learning_rate < float("inf"), f"{key}.learning_rate", self.learning_rate, "a finite number above 0")

    def told_before(self, told: str) -> str:
        """How a method that starts from it makes what is released."""
        return told if self.epsilon is None else f"Means and covariances of the classes were measured with noise first. {told}"

    def spends(self, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [] if self.epsilon is None else self.moments_spends(dataset, self._sigma(dataset, privacy))

    def hints(self, dataset: Dataset, privacy: Privacy, conditional: bool) -> list[str]:
        return [] if self.epsilon is None else self.moments_hints(dataset, self._sigma(dataset, privacy), conditional)

    @property
    def trained_images(self) -> int:
        """Forward and backward passes of one image."""
        return 0 if self.epsilon is None else self.steps * self.batch_size

    def measure(self, private: PrivateDataset, model: PublicModel, run: Run, conditional: bool) -> Moment | None:
        """The only step that sees private images."""
        if self.epsilon is None:
            return None
        with run.meter.part("moments"):
            return measure(self, private, model, run, self._sigma(run.dataset, run.privacy), conditional)

    def draw(self, moment: Moment, seed: int) -> SampleSet:
        """`num_samples` of them, of each class as its noisy count says."""
        return moment.draw(apportion(moment.class_counts, self.num_samples), numpy_rng(seed, "warm_up/samples"))

    def _sigma(self, dataset: Dataset, privacy: Privacy) -> float:
        assert self.epsilon is not None
        return gaussian_noise_multiplier(self.epsilon, privacy.delta_for(dataset.num_private))


@dataclass(kw_only=True)
class WarmUp(MomentsFirst):
    """What is drawn from the moments trains the public model, or is what `pe` starts from."""

    optional = True
    epsilon: float | None = None  # of the budget for moments; null: no warm-up
    noisy_from: float = 0.3  # timesteps below this share of all see public images of the same classes, or, without any, nothing
    degree: float | None = None  # of VARIATION, which makes PE's first population of samples

    def check(self, key: str, dataset: Dataset, model: Model, privacy: Privacy, conditional: bool) -> None:
        if self.epsilon is None:
            require(self.degree is None, f"{key}.degree", self.degree, f"null, as {key}.epsilon is; tuned=none has neither")
            return
        self.check_first(key, dataset, model, privacy, conditional)
        require(0 <= self.noisy_from <= 1, f"{key}.noisy_from", self.noisy_from, "from 0 to 1")
        require(
            not self.steps or model.has_denoiser,
            f"{key}.steps",
            self.steps,
            f"0, as model={model.name} cannot be trained",
        )
        if self.degree is not None:
            model.check_degree(f"{key}.degree", self.degree, None)

    def memory(self, dataset: Dataset, model: Model) -> int:
        """Bytes: moments, their samples, and ordinary training of the network; 0 where it is off."""
        if self.epsilon is None:
            return 0
        drawn = self.moments_memory(dataset, self.num_samples)
        costs = self.training_costs(model)
        return drawn if costs is None else drawn + 4 * 6 * costs.parameters + self.batch_size * costs.activation_bytes

    def training_costs(self, model: Model) -> TrainingCosts | None:
        """Of the ordinary training of a whole network; None where there is none."""
        if not self.trained_images:
            return None
        return model.training_costs({"by": "warm-up"}, lambda network: network.requires_grad_(True))

    def train(self, moment: Moment, denoiser: Denoiser, run: Run, model_labels: np.ndarray, conditional: bool) -> None:
        """What of the network is trainable, in place; it ends with averaged weights. `model_labels` int64 [classes]."""
        if not self.steps:
            return
        drawn = self.draw(moment, run.seed)
        samples = SampleSet(drawn.images, model_labels[drawn.labels], denoiser.num_labels)
        clean = None
        if conditional and self.prior_of(run.dataset) is Prior.classes:
            public = run.dataset.kept(run.dataset.some_public())
            clean = SampleSet(public.images, model_labels[public.labels], samples.num_classes)
        last = len(denoiser.alpha_bar)
        noisy = [Interval(weight=1.0, low=min(last - 1, round(self.noisy_from * last)), high=last)]
        config = PretrainingConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            ema_decay=0.99,
            label_dropout=0.1 if denoiser.null_label is not None else 0.0,
            timestep_mixture=noisy if clean is None else [],
            checkpoint_steps=100,
        )
        where = run.checkpoints / "warm_up.pt"
        with run.meter.part("warm-up"), run.progress("warm-up", self.steps) as advance:
            done = 0
            for step in pretrain(denoiser, samples, config, run.seed, where, clean=clean, noisy_from=self.noisy_from):
                advance(step - done)
                done = step
