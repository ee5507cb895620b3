"""What every method that trains by DP-SGD has in common: its settings, what they spend, and the loop set up from them."""

from __future__ import annotations

import json
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
from disk import write_json
from dp_finetune.engines import ENGINES, EngineName, choose, refuse_batch_norm, views_that_fit
from dp_finetune.objective import DrawsViews, ViewsLike
from dp_finetune.per_example import unsupported_layers
from dp_finetune.training import Trainer
from errors import require
from method import Method, Run
from models.ema import EMA, trainable
from models.public.network import Precision
from privacy.config import Privacy
from privacy.mechanisms import SampledGaussian, Spend
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

    steps: int = 100
    batch_size: int | None = 256  # expected: q = batch_size / N
    sample_rate: float | None = None  # q itself, with batch_size=null
    augmult: int = 8
    augmentations: list[Augmentation] = field(default_factory=list)
    max_grad_norm: float = 1e-3
    optimizer: OptimizerName = OptimizerName.adam
    learning_rate: float = 1e-3
    momentum: float = 0.0  # of sgd
    weight_decay: float = 0.0
    ema_decay: float = 0.9999
    gradient_engine: EngineName = EngineName.auto
    precision: Precision = Precision.auto
    memory_gib: float | None = None  # for the activations of one pass: how many views that holds; null: by the device
    max_minutes: float | None = None  # stop training then, and release at what is spent by then

    def check_training(self, dataset: Dataset) -> None:
        for key in ("steps", "augmult"):
            require(getattr(self, key) >= 1, f"method.{key}", getattr(self, key), "1 or more")
        if self.sample_rate is None:
            size, allowed = self.batch_size, f"1 to the {dataset.num_private} private images, or null and method.sample_rate"
            require(size is not None and 1 <= size <= dataset.num_private, "method.batch_size", size, allowed)
        else:
            require(0 < self.sample_rate <= 1, "method.sample_rate", self.sample_rate, "above 0, to 1")
            require(self.batch_size is None, "method.batch_size", self.batch_size, "null, as method.sample_rate is set")
        for key in ("max_grad_norm", "learning_rate"):
            require(0 < getattr(self, key) < float("inf"), f"method.{key}", getattr(self, key), "a finite number above 0")
        right = self.memory_gib is None or 0 < self.memory_gib < float("inf")
        require(right, "method.memory_gib", self.memory_gib, "a finite number above 0, or null")
        require(0 <= self.weight_decay < float("inf"), "method.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.momentum < 1, "method.momentum", self.momentum, "0 (off) to below 1")
        plain = self.optimizer is OptimizerName.sgd or not self.momentum
        require(plain, "method.momentum", self.momentum, f"0, as method.optimizer={self.optimizer.value} has its own")
        require(0 <= self.ema_decay < 1, "method.ema_decay", self.ema_decay, "0 (off) to below 1")
        require(self.max_minutes is None or self.max_minutes > 0, "method.max_minutes", self.max_minutes, "above 0, or null")

    def spends(self, noise_multiplier: float, dataset: Dataset, privacy: Privacy) -> list[Spend]:
        training = Spend("dp_sgd", self._mechanism(noise_multiplier, dataset), self.steps)
        return [*self.class_counts_spend(dataset, privacy), training] if self.num_samples else [training]

    def trained_views(self, dataset: Dataset) -> int:
        """Expected forward and backward passes of one image."""
        return round(self.steps * self._expected_batch(dataset) * self.augmult)

    def training_memory(self, network: Any, bytes_per_view: int, dataset: Dataset) -> int:
        """Weights, gradients, their sum, moments and averages; the activations of one pass; gradients of its examples apart."""
        parameters, gibibytes = sum(p.numel() for p in trainable(network).values()), self._pass_gibibytes(torch.device("cpu"))
        views = views_that_fit(bytes_per_view, gibibytes)
        batched = self.gradient_engine is not EngineName.views and not unsupported_layers(network)
        examples = max(1, min(views // self.augmult, math.ceil(self._expected_batch(dataset)))) if batched else 1
        return 4 * parameters * (7 + examples) + int(max(gibibytes * 2**30, bytes_per_view))

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
        assert run.noise_multiplier is not None
        refuse_batch_norm(network)
        device = next(network.parameters()).device
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False  # it would round the clipped gradients after their norm was taken
        with run.meter.part("training"):
            engine = self._engine(network, some_views, bytes_per_view, run.checkpoints)
        ema = EMA(network, self.ema_decay)
        trainer = Trainer(
            unet=network,
            engine=engine,
            objective=objective,
            optimizer=self._optimizer(engine.parameters, run),
            ema=ema,
            mechanism=self._mechanism(run.noise_multiplier, run.dataset),
            noise=run.noise,
            checkpoint=run.checkpoints / "training.pt",
            device=device,
            model_labels=model_labels,
        )
        max_seconds = math.inf if self.max_minutes is None else 60 * self.max_minutes
        with run.meter.part("training"), run.progress("DP training", self.steps) as advance:
            done = 0
            for step in trainer.train(private, self.steps, max_seconds):
                advance(step - done)
                done = step
        if trainer.stopped:
            console.print(f"method.max_minutes={self.max_minutes}: stopped after {done} of {self.steps} steps", highlight=False)
        ema.copy_to(network)

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

    def _optimizer(self, parameters: list[torch.nn.Parameter], run: Run) -> PrivateOptimizer:
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
            noise_multiplier=run.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=self._expected_batch(run.dataset),  # type: ignore[arg-type]  # a divisor, whole or not
        )

    def _engine(self, network: Any, some_views: Callable[[int], ViewsLike], bytes_per_view: int, checkpoints: Path) -> Any:
        """The configured engine; `auto` is timed once and remembered, so that a resumed run sums in the same order."""
        path = checkpoints / "engine.json"
        device = next(network.parameters()).device
        views = views_that_fit(bytes_per_view, self._pass_gibibytes(device))
        bfloat16 = self.precision.is_bfloat16(device)
        if path.exists():
            chosen = EngineName(json.loads(path.read_text())["engine"])
        else:
            auto = self.gradient_engine is EngineName.auto
            timed = choose(network, some_views, self.augmult, views, bfloat16) if auto else self.gradient_engine
            chosen = ranks.broadcast(timed)
            write_json(path, {"engine": chosen.value})
        return ENGINES[chosen](network, views, self.augmult, bfloat16)
