"""`method=dp_diffusion` (Ghalebikesabi et al. 2023): DP-SGD on a diffusion U-Net, then class-conditional sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from dp_finetune.dpsgd import DPSGD
from dp_finetune.engines import EngineName
from dp_finetune.objective import Objective, dummy_views
from errors import require, unusable
from method import Run, require_matching_labels, require_matching_shape
from models.costs import TrainingCosts, is_own
from models.diffusion.checkpointing import checkpoint_blocks
from models.diffusion.timesteps import Interval, check_mixture
from models.public.settings import Model, PublicModel
from moments.warm_up import WarmUp
from privacy.config import Privacy
from privacy.mechanisms import Spend

FROM_NOTHING = (
    "The network starts from random weights, and the budget has to teach it everything. Weights that have seen public images of "
    "the same kind need less of it: python -m scripts.pretrain_public makes them, see docs/public-models.md."
)


@dataclass(kw_only=True)
class DPDiffusion(DPSGD):
    """The K views of an example are it under K timesteps and noises, flipped, cropped or recoloured where asked."""

    protects_users = True
    told = "A diffusion model was trained on the private images by clipped and noisy steps (DP-SGD), and drew these."

    name: str = "dp_diffusion"
    # intervals of timesteps and their weights, {weight, low, high}; empty: uniform
    timestep_mixture: list[Interval] = field(default_factory=list)
    label_dropout: float = 0.0  # share of views that train the null label, for classifier-free guidance
    warm_up: WarmUp = field(default_factory=WarmUp)
    guidance: float | None = None  # weight of classifier-free guidance when sampling; null: the model's
    gradient_checkpointing: bool = False  # blocks keep their input alone, and are computed again in the backward pass

    @property
    def how_made(self) -> str:
        return self.warm_up.told_before(self.told)

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        require(model.has_denoiser, "model", model.name, f"a U-Net, as method={self.name} trains it")
        there = model.pretrained is not None or model.takes_random_weights
        require(there, "model.pretrained", None, f"a folder, as model={model.name} needs a public autoencoder")
        require_matching_labels(self, dataset, model)
        require_matching_shape(self, dataset, model)
        self.check_training(dataset)
        require(0 <= self.label_dropout < 1, "method.label_dropout", self.label_dropout, "0 (off) or more, and below 1")
        require(
            not self.label_dropout or model.null_label, "method.label_dropout", self.label_dropout, "0, as model.null_label=false"
        )
        guidance = self.guidance
        require(
            guidance is None or 0 <= guidance <= 100, "method.guidance", guidance, "from 0 (off) to 100, or null for the model's"
        )
        require(not guidance or model.null_label, "method.guidance", guidance, "0 or null, as model.null_label=false")
        self.warm_up.check("method.warm_up", dataset, model, privacy, self.conditional)
        check_mixture("method.timestep_mixture", self.timestep_mixture, model.num_steps)
        views = self.gradient_engine is EngineName.views or not self.gradient_checkpointing
        require(views, "method.gradient_checkpointing", True, "false, or true with method.gradient_engine=views")

    def work(self, dataset: Dataset, model: Model) -> dict[str, int | None]:
        trained, calls = self.trained_views(dataset) + self.warm_up.trained_images, model.calls(guidance=self.guidance)
        every = None if calls is None else trained + self.num_samples * calls
        return {"steps": self.steps, "network_calls": every, "backward_calls": trained}

    @property
    def takes_moments(self) -> bool:
        return self.warm_up.epsilon is not None

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [*self.warm_up.spends(dataset, privacy), *super().spends(noise_multiplier, dataset, privacy)]

    def hints(self, dataset: Dataset, model: Model, privacy: Privacy, noise_multiplier: float | None) -> list[str]:
        found = self.warm_up.hints(dataset, privacy, self.conditional)
        return found if model.pretrained is not None else [FROM_NOTHING, *found]

    def memory(self, dataset: Dataset, model: Model) -> int | None:
        costs, sampling = self.costs(model), super().memory(dataset, model)
        training = self.training_memory(costs.parameters, costs.activation_bytes, dataset)
        return None if sampling is None else sampling + max(training, self.warm_up.memory(dataset, model))

    def training_facts(self, dataset: Dataset, model: Model) -> dict[str, int]:
        costs = self.costs(model)
        return {"trainable_parameters": costs.parameters, "backward_flops": costs.backward_flops}

    def costs(self, model: Model) -> TrainingCosts:
        """InputError where the model has nothing that can be trained so."""
        by = f"{type(self).prepare.__module__}.{type(self).prepare.__qualname__}"
        trained = {"by": by, "settings": self.trained, "checkpointed": self.gradient_checkpointing} if is_own(self) else None
        costs = model.training_costs(trained, lambda network: self._prepare(network, seed=0))
        if costs is None:
            raise unusable("model", model.name, "it has no denoiser to train")
        return costs

    @property
    def trained(self) -> dict[str, Any]:
        """The settings on which it depends what `prepare` leaves trainable, as JSON may write them."""
        return {}

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        """Trains `model.denoiser` in place, and gives it the classes and the guidance that it is released with."""
        denoiser = model.denoiser
        denoiser.classes = self.model_labels(run.dataset).tolist()
        run.save_model = self.saver(model)
        self._prepare(denoiser.network, run.seed)
        moment = self.warm_up.measure(private, model, run, self.conditional)
        if moment is not None:
            self.warm_up.train(moment, denoiser, run, self.model_labels(run.dataset), self.conditional)
        self.fit(private, model, run)
        if self.guidance is not None:
            denoiser.guidance = self.guidance
        sizes = self.class_sizes(private, run, None if moment is None else moment.class_counts)
        labels = np.repeat(np.arange(len(sizes)), sizes)
        with run.meter.part("sampling"), run.progress("sampling", len(labels)) as advance:
            images = denoiser.random(self.model_labels(run.dataset)[labels], stream=f"{self.name}/samples", advance=advance)
        return SampleSet(images, labels, len(sizes))

    def _prepare(self, unet: Any, seed: int) -> None:
        self.prepare(unet, seed)
        if self.gradient_checkpointing:
            checkpoint_blocks(unet)

    def prepare(self, unet: Any, seed: int) -> None:
        """Choose what is trained, or add it: here all there is."""
        unet.requires_grad_(True)

    def saver(self, model: PublicModel) -> Callable[[Path], None]:
        """What writes release/model once `model`, untrained yet, is trained: here the whole of it."""
        return model.denoiser.save

    def fit(self, private: PrivateDataset, model: PublicModel, run: Run) -> None:
        """Train in place; the network ends with its averaged weights."""
        denoiser = model.denoiser
        objective = Objective(
            denoiser=denoiser,
            mixture=self.timestep_mixture,
            augmult=self.augmult,
            augmentations=self.augmentations,
            label_dropout=self.label_dropout,
            noise=run.noise,
        )
        self.fit_network(
            denoiser.network,
            objective,
            lambda examples: dummy_views(denoiser, examples, self.augmult),
            denoiser.activation_bytes(),
            private,
            run,
            self.model_labels(run.dataset),
        )
