"""`method=dp_diffusion` (Ghalebikesabi et al. 2023): DP-SGD on a diffusion U-Net, then class-conditional sampling."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.augmentations import Augmentation
from data.dataset import Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from dp_finetune.engines import ENGINES, EngineName, choose, refuse_batch_norm, views_that_fit
from dp_finetune.objective import Objective
from dp_finetune.optimizer import PrivateOptimizer
from dp_finetune.per_example import unsupported_layers
from dp_finetune.training import Trainer
from errors import require
from method.base import Method, Run, require_matching_labels, require_matching_shape
from models.config import Model, PublicModel
from models.diffusion import activation_bytes, flops
from models.ema import EMA, trainable
from models.network import Network, Precision
from models.timesteps import Interval, check_mixture
from privacy.config import Privacy
from privacy.mechanisms import SampledGaussian, Spend
from tracking import ranks
from tracking.progress import console, progress
from tracking.run_dir import write_json


class OptimizerName(Enum):
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


@dataclass(kw_only=True)
class DPDiffusion(Method):
    """Batches are Poisson samples: every example with probability q. A step costs one subsampled Gaussian mechanism."""

    name: str = "dp_diffusion"
    steps: int = 100
    batch_size: int | None = 256  # expected: q = batch_size / N
    sample_rate: float | None = None  # q itself, with batch_size=null
    augmult: int = 8
    augmentations: list[Augmentation] = field(default_factory=list)
    timestep_mixture: list[Interval] = field(default_factory=list)
    max_grad_norm: float = 1e-3
    optimizer: OptimizerName = OptimizerName.adam
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    ema_decay: float = 0.9999
    label_dropout: float = 0.0  # share of views that train the null label, for classifier-free guidance
    guidance: float | None = None  # weight of classifier-free guidance when sampling; null: the model's
    gradient_engine: EngineName = EngineName.auto
    precision: Precision = Precision.auto
    memory_gib: float = 0.5  # for the activations of one pass; fixes how many views that holds
    max_minutes: float | None = None  # stop training then, and release at what is spent by then

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        super().check(dataset, model, privacy)
        require(isinstance(model, Network), "model", model.name, f"a U-Net, as method={self.name} trains it")
        require_matching_labels(self, dataset, model)
        require_matching_shape(self, dataset, model)
        for key in ("steps", "augmult"):
            require(getattr(self, key) >= 1, f"method.{key}", getattr(self, key), "1 or more")
        if self.sample_rate is None:
            size, allowed = self.batch_size, f"1 to the {dataset.num_private} private images, or null and method.sample_rate"
            require(size is not None and 1 <= size <= dataset.num_private, "method.batch_size", size, allowed)
        else:
            require(0 < self.sample_rate <= 1, "method.sample_rate", self.sample_rate, "above 0, to 1")
            require(self.batch_size is None, "method.batch_size", self.batch_size, "null, as method.sample_rate is set")
        for key in ("max_grad_norm", "learning_rate", "memory_gib"):
            require(0 < getattr(self, key) < float("inf"), f"method.{key}", getattr(self, key), "a finite number above 0")
        require(0 <= self.weight_decay < float("inf"), "method.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.ema_decay < 1, "method.ema_decay", self.ema_decay, "0 (off) to below 1")
        require(0 <= self.label_dropout < 1, "method.label_dropout", self.label_dropout, "0 (off) to below 1")
        require(
            not self.label_dropout or model.null_label, "method.label_dropout", self.label_dropout, "0, as model.null_label=false"
        )
        guidance = self.guidance
        require(guidance is None or 0 <= guidance <= 100, "method.guidance", guidance, "0 (off) to 100, or null for the model's")
        require(not guidance or model.null_label, "method.guidance", guidance, "0 or null, as model.null_label=false")
        require(self.max_minutes is None or self.max_minutes > 0, "method.max_minutes", self.max_minutes, "above 0, or null")
        check_mixture("method.timestep_mixture", self.timestep_mixture, model.num_steps)

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        return [
            *self.class_counts_spend(dataset, privacy),
            Spend("dp_sgd", self._mechanism(noise_multiplier, dataset), self.steps),
        ]

    def work(self, dataset: Dataset, model: Model) -> dict[str, int]:
        trained = round(self.steps * self._expected_batch(dataset) * self.augmult)
        sampled = self.num_samples * model.calls(guidance=self.guidance)
        return {"steps": self.steps, "network_calls": trained + sampled, "backward_calls": trained}

    def memory(self, dataset: Dataset, model: Model) -> int:
        """Weights, gradients, their sum, moments and averages; the activations of one pass; gradients of its examples apart."""
        unet = model.skeleton()
        self.prepare(unet, seed=0)
        parameters, views = sum(p.numel() for p in trainable(unet).values()), views_that_fit(unet, self.memory_gib)
        batched = self.gradient_engine is not EngineName.views and not unsupported_layers(unet)
        examples = max(1, min(views // self.augmult, math.ceil(self._expected_batch(dataset)))) if batched else 1
        training = 4 * parameters * (7 + examples) + int(max(self.memory_gib * 2**30, activation_bytes(unet)))
        return super().memory(dataset, model) + training

    def training_facts(self, model: Model) -> dict[str, int]:
        unet = model.skeleton()
        self.prepare(unet, seed=0)
        parameters = sum(p.numel() for p in trainable(unet).values())
        return {"trainable_parameters": parameters, "backward_flops": flops(unet)["backward"]}

    def run(self, private: PrivateDataset, model: PublicModel, run: Run) -> SampleSet:
        model.generator.classes = self.model_labels(run.dataset).tolist()
        run.save_model = self.saver(model)
        self.prepare(model.generator.unet, run.seed)
        self.fit(private, model, run)
        if self.guidance is not None:
            model.generator.guidance = self.guidance
        sizes = self.class_sizes(private, run)
        labels = np.repeat(np.arange(len(sizes)), sizes)
        with progress("sampling", len(labels)) as advance:
            images = model.generator.random(
                self.model_labels(run.dataset)[labels], stream=f"{self.name}/samples", advance=advance
            )
        return SampleSet(images, labels, len(sizes))

    def prepare(self, unet: Any, seed: int) -> None:
        """Choose what is trained, or add it: here all there is."""
        unet.requires_grad_(True)

    def saver(self, model: PublicModel) -> Callable[[Path], None]:
        """What writes release/model once `model`, untrained yet, is trained: here the whole of it."""
        return model.generator.save

    def fit(self, private: PrivateDataset, model: PublicModel, run: Run) -> None:
        """Train in place; the network ends with its averaged weights."""
        generator = model.generator
        assert run.noise_multiplier is not None
        refuse_batch_norm(generator.unet)
        if generator.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # it would round the clipped gradients after their norm was taken
        engine = self._engine(generator.unet, run.checkpoints)
        ema = EMA(generator.unet, self.ema_decay)
        trainer = Trainer(
            unet=generator.unet,
            engine=engine,
            objective=Objective(
                mixture=self.timestep_mixture,
                augmult=self.augmult,
                augmentations=self.augmentations,
                alpha_bar=torch.from_numpy(generator.alpha_bar).float().to(generator.device),
                null_label=generator.null_label,
                label_dropout=self.label_dropout,
                seed=run.seed,
                timestep_scale=generator.timestep_scale,
            ),
            optimizer=self._optimizer(engine.parameters, run),
            ema=ema,
            mechanism=self._mechanism(run.noise_multiplier, run.dataset),
            noise=run.noise,
            checkpoint=run.checkpoints / "training.pt",
            device=generator.device,
            model_labels=self.model_labels(run.dataset),
        )
        max_seconds = math.inf if self.max_minutes is None else 60 * self.max_minutes
        with progress("DP training", self.steps) as advance:
            done = 0
            for step in trainer.train(private, self.steps, max_seconds):
                advance(step - done)
                done = step
        if trainer.stopped:
            console.print(f"method.max_minutes={self.max_minutes}: stopped after {done} of {self.steps} steps", highlight=False)
        ema.copy_to(generator.unet)

    def _mechanism(self, noise_multiplier: float, dataset: Dataset) -> SampledGaussian:
        rate = self.sample_rate or self._expected_batch(dataset) / dataset.num_private
        return SampledGaussian(noise_multiplier, rate)

    def _expected_batch(self, dataset: Dataset) -> float:
        """q·N"""
        return self.batch_size or (self.sample_rate or 0.0) * dataset.num_private

    def _optimizer(self, parameters: list[torch.nn.Parameter], run: Run) -> PrivateOptimizer:
        kinds: dict[OptimizerName, Any] = {
            OptimizerName.adam: torch.optim.Adam,
            OptimizerName.adamw: torch.optim.AdamW,
            OptimizerName.sgd: torch.optim.SGD,
        }
        plain = kinds[self.optimizer](parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        return PrivateOptimizer(
            plain,
            noise_multiplier=run.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=self._expected_batch(run.dataset),  # type: ignore[arg-type]  # a divisor, whole or not
        )

    def _engine(self, unet: Any, checkpoints: Path) -> Any:
        """The configured engine; `auto` is timed once and remembered, so that a resumed run sums in the same order."""
        path = checkpoints / "engine.json"
        views = views_that_fit(unet, self.memory_gib)
        bfloat16 = self.precision.is_bfloat16(next(unet.parameters()).device)
        if path.exists():
            chosen = EngineName(json.loads(path.read_text())["engine"])
        else:
            auto = self.gradient_engine is EngineName.auto
            chosen = ranks.agreed(choose(unet, self.augmult, views, bfloat16)) if auto else self.gradient_engine
            write_json(path, {"engine": chosen.value})
        return ENGINES[chosen](unet, views, self.augmult, bfloat16)
