"""What every method that trains by DP-SGD has in common: its settings, what they spend, and the loop set up from them."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data.augmentations import Augmentation
from data.dataset import Dataset
from data.private import PrivateDataset
from dp_finetune.engines import ENGINES, EngineName, choose, examples_that_fit, refuse_batch_norm, views_that_fit
from dp_finetune.objective import DrawsViews, ViewsLike
from dp_finetune.pace import steps_that_fit
from dp_finetune.training import Trainer
from errors import require
from method import Method, Run
from models.ema import EMA
from models.public.network import Precision
from privacy.config import Privacy
from privacy.mechanisms import SampledGaussian, Spend
from privacy.noise import NoiseSource
from tracking import ranks
from tracking.progress import console

if TYPE_CHECKING:
    from dp_finetune.optimizer import PrivateOptimizer


class OptimizerName(Enum):
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


@dataclass(kw_only=True)
class DPSGD(Method):
    """Batches are Poisson samples: every example with probability q. A step costs one subsampled Gaussian mechanism."""

    steps: int = 100  # noisy steps
    batch_size: int | None = 256  # expected: q = batch_size / N
    sample_rate: float | None = None  # q itself, with batch_size=null
    augmult: int = 8  # K: views of an example, whose gradients are averaged before clipping
    augmentations: list[Augmentation] = field(default_factory=list)  # of each view
    max_grad_norm: float = 1e-3  # C: gradients of an example are clipped to this norm
    optimizer: OptimizerName = OptimizerName.adam  # takes the noisy gradients
    learning_rate: float = 1e-3  # of the optimizer
    momentum: float = 0.0  # of sgd
    weight_decay: float = 0.0  # of the optimizer
    ema_decay: float = 0.9999  # of the averaged weights that are released; 0: the last ones
    gradient_engine: EngineName = EngineName.auto  # how an example's gradient is found; auto: the faster one by a short timing
    precision: Precision = Precision.auto  # of the network's products in training
    memory_gib: float | None = None  # for the activations of one pass: how many views that holds; null: by the device
    max_minutes: float | None = None  # of DP-SGD, after any warm-up: as many steps as a timing says will fit, at least 1

    def check_training(self, dataset: Dataset) -> None:
        for key in ("steps", "augmult"):
            require(getattr(self, key) >= 1, f"method.{key}", getattr(self, key), "1 or more")
        if self.sample_rate is None:
            size, allowed = (
                self.batch_size,
                f"from 1 to the {dataset.num_private} private {dataset.unit.plural}, or null with a method.sample_rate",
            )
            require(size is not None and 1 <= size <= dataset.num_private, "method.batch_size", size, allowed)
        else:
            allowed = f"at least 1 / {dataset.num_private} (one of the private {dataset.unit.plural}) and at most 1"
            require(1 / dataset.num_private <= self.sample_rate <= 1, "method.sample_rate", self.sample_rate, allowed)
            require(self.batch_size is None, "method.batch_size", self.batch_size, "null, as method.sample_rate is set")
        for key in ("max_grad_norm", "learning_rate"):
            allowed = "from 1e-30 to 1e30, as gradients and weights are float32"
            require(1e-30 <= getattr(self, key) <= 1e30, f"method.{key}", getattr(self, key), allowed)
        right = self.memory_gib is None or 0 < self.memory_gib < float("inf")
        require(right, "method.memory_gib", self.memory_gib, "a finite number above 0, or null")
        require(0 <= self.weight_decay < float("inf"), "method.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.momentum < 1, "method.momentum", self.momentum, "0 (off) or more, and below 1")
        plain = self.optimizer is OptimizerName.sgd or not self.momentum
        require(plain, "method.momentum", self.momentum, f"0, as method.optimizer={self.optimizer.value} has its own")
        require(0 <= self.ema_decay < 1, "method.ema_decay", self.ema_decay, "0 (off) or more, and below 1")
        right = self.max_minutes is None or 0 < self.max_minutes < float("inf")
        require(right, "method.max_minutes", self.max_minutes, "a finite number above 0, or null")

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        training = Spend("dp_sgd", self._mechanism(noise_multiplier, dataset), self.steps)
        return [*self.class_counts_spend(dataset, privacy), training] if self.num_samples else [training]

    def trained_views(self, dataset: Dataset) -> int:
        """Expected forward and backward passes of one image."""
        return round(self.steps * self._expected_batch(dataset) * self.augmult)

    def training_memory(self, parameters: int, bytes_per_view: int, dataset: Dataset) -> int:
        """Weights, gradients, their float64 sum, moments and averages, and a copy to time; the activations of one pass; gradients
        of its examples apart."""
        gibibytes = self._pass_gibibytes(torch.device("cpu"))
        views = self._views_per_pass(bytes_per_view, dataset, torch.device("cpu"))
        batched = self.gradient_engine is not EngineName.views
        examples = examples_that_fit(views, self.augmult, parameters, torch.device("cpu")) if batched else 1
        return 4 * parameters * (8 + examples) + int(max(gibibytes * 2**30, bytes_per_view))

    def fit_network(
        self,
        network: Any,
        objective: DrawsViews,
        some_views: Callable[[int], ViewsLike],
        bytes_per_view: int,
        private: PrivateDataset,
        run: Run,
        model_labels: np.ndarray,
    ) -> None:
        """Train in place; the network ends with its averaged weights.

        `some_views(B)` are views of B random examples, to time the engines on; `model_labels` int64 [classes]: what the network
        is told for each class.
        """
        sigma = run.noise_multiplier
        assert sigma is not None
        refuse_batch_norm(network)
        device = next(network.parameters()).device
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # gradients of float32, as everywhere else
        views = self._views_per_pass(bytes_per_view, run.dataset, device)
        bfloat16 = self.precision.is_bfloat16(device)
        with run.meter.part("training"):
            kind = self._engine(functools.partial(choose, network, some_views, self.augmult, views, bfloat16), run.checkpoints)

        def trainer(of: Any, noise: NoiseSource) -> Trainer:
            engine = ENGINES[kind](of, views, self.augmult, bfloat16)
            return Trainer(
                network=of,
                engine=engine,
                objective=objective,
                optimizer=self.private_optimizer(engine.parameters, sigma, run.dataset),
                ema=EMA(of, self.ema_decay),
                mechanism=self._mechanism(sigma, run.dataset),
                noise=noise,
                checkpoint=run.checkpoints / "training.pt",
                device=device,
                model_labels=model_labels,
            )

        with run.meter.part("training"):
            steps = self._steps(lambda: trainer(copy.deepcopy(network), NoiseSource(bytes(32))), run)
        trained = trainer(network, run.noise)
        with run.meter.part("training"), run.progress("DP training", steps) as advance:
            done = 0
            for step in trained.train(private, steps):
                advance(step - done)
                done = step
        trained.ema.copy_to(network)

    def _steps(self, rehearsal: Callable[[], Trainer], run: Run) -> int:
        """How many of `steps` are taken: decided before the first is spent for, so that nothing private decides it."""
        if self.max_minutes is None:
            return self.steps
        seconds, data = 60 * self.max_minutes, run.dataset

        def timed() -> int:
            fit = steps_that_fit(seconds, rehearsal(), data.shape, data.num_private, self._expected_batch(data))
            return min(self.steps, max(1, fit))

        steps = ranks.decided_once(run.checkpoints / "steps.json", timed)
        if steps < self.steps:
            console.print(f"method.max_minutes={self.max_minutes}: {steps} of {self.steps} steps", highlight=False)
        return steps

    def _views_per_pass(self, bytes_per_view: int, dataset: Dataset, device: torch.device) -> int:
        """As many as fit, but of no more examples than an eighth of a batch, or 4: passes are filled up, see `Trainer.add`."""
        batch = math.ceil(self._expected_batch(dataset))
        examples = max(math.ceil(batch / 8), min(batch, 4))
        return min(views_that_fit(bytes_per_view, self._pass_gibibytes(device)), examples * self.augmult)

    def _pass_gibibytes(self, device: torch.device) -> float:
        """Of a GPU an eighth of its memory: gradients of the pass's examples come on top."""
        if self.memory_gib is not None:
            return self.memory_gib
        return torch.cuda.get_device_properties(device).total_memory / 2**33 if device.type == "cuda" else 0.5

    def _mechanism(self, noise_multiplier: float, dataset: Dataset) -> SampledGaussian:
        rate = self.sample_rate or self._expected_batch(dataset) / dataset.num_private
        return SampledGaussian(noise_multiplier, rate)

    def _expected_batch(self, dataset: Dataset) -> float:
        """q·N"""
        return self.batch_size or (self.sample_rate or 0.0) * dataset.num_private

    def private_optimizer(
        self, parameters: list[torch.nn.Parameter], noise_multiplier: float, dataset: Dataset
    ) -> PrivateOptimizer:
        from dp_finetune.optimizer import PrivateOptimizer  # with Opacus, which a plan does not need

        kinds: dict[OptimizerName, Any] = {
            OptimizerName.adam: torch.optim.Adam,
            OptimizerName.adamw: torch.optim.AdamW,
            OptimizerName.sgd: torch.optim.SGD,
        }
        more = {"momentum": self.momentum} if self.optimizer is OptimizerName.sgd else {}
        plain = kinds[self.optimizer](parameters, lr=self.learning_rate, weight_decay=self.weight_decay, **more)
        return PrivateOptimizer(
            plain,
            noise_multiplier=noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=self._expected_batch(dataset),  # type: ignore[arg-type]  # a divisor, whole or not
        )

    def _engine(self, timed: Callable[[], EngineName], checkpoints: Path) -> EngineName:
        """The configured engine; `auto` is timed once and remembered, so that a resumed run sums in the same order."""
        if self.gradient_engine is not EngineName.auto:
            return self.gradient_engine
        return EngineName(ranks.decided_once(checkpoints / "engine.json", lambda: timed().value))
