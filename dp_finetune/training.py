"""The DP-SGD loop: Poisson batches, K views an example, clipped sums, one noise a step. One loop serves every method.

What differs between methods is which parameters are trainable. The loop yields after every step; losses, gradient norms
and clipping fractions on private data are private, and are computed nowhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data.private import PrivateDataset
from disk import whole_file
from dp_finetune.engines import Engine
from dp_finetune.objective import DrawsViews
from models.ema import EMA, trainable
from privacy.mechanisms import SampledGaussian
from privacy.noise import NoiseSource
from tracking import ranks

if TYPE_CHECKING:
    from dp_finetune.optimizer import PrivateOptimizer

CHECKPOINT_SECONDS = 30.0


@dataclass
class Trainer:
    unet: Any
    engine: Engine
    objective: DrawsViews
    optimizer: PrivateOptimizer
    ema: EMA
    mechanism: SampledGaussian
    noise: NoiseSource
    checkpoint: Path
    device: torch.device
    model_labels: np.ndarray  # int64 [classes]: what the network is told for each class; one number where it is told none
    step: int = 0  # steps taken
    seconds: float = 0.0  # that they took, those before a kill included
    stopped: bool = False  # out of time before the last step

    def train(self, private: PrivateDataset, steps: int, max_seconds: float = math.inf) -> Iterator[int]:
        """Take steps until `steps` are taken or the time is over, from a saved checkpoint where there is one; yields their
        number so far.

        Every step is spent for and drawn from streams of its own number, so a step that is taken again after a kill is the
        same step, with the same batch and the same noise.
        """
        self._load()
        for step in range(1, self.step + 1):  # spent, whatever became of the ledger's file
            private.spend(f"dp_sgd/step={step}", self.mechanism)
        if self.step:
            yield self.step
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        self.unet.eval()  # dropout would make another step of one that is taken again after a kill
        while self.step < steps and not self.stopped:
            purpose = f"dp_sgd/step={self.step + 1}"
            samples = private.spend(purpose, self.mechanism)
            labels = self.model_labels[samples.labels if len(self.model_labels) > 1 else np.zeros_like(samples.labels)]
            batch = poisson_batch(len(samples), self.mechanism.sample_rate, self.noise, purpose)
            mine = batch[ranks.share() :: ranks.world()]
            for rows in np.array_split(mine, range(self.engine.examples_per_pass, len(mine), self.engine.examples_per_pass)):
                if len(rows):
                    x = self.objective.encode(samples.images[rows])
                    self.engine(self.objective.views(x, torch.from_numpy(labels[rows]), rows.tolist(), self.step + 1))
                    self.optimizer.signal_skip_step(True)
                    self.optimizer.step()
                    self.optimizer.zero_grad(set_to_none=True)
            self._finish_step(purpose)
            self.seconds = time.monotonic() - started
            self.stopped = max_seconds < math.inf and ranks.broadcast(self.seconds > max_seconds) and self.step < steps
            if time.monotonic() - saved > CHECKPOINT_SECONDS or self.step == steps or self.stopped:
                self.save()
                saved = time.monotonic()
            yield self.step

    def _finish_step(self, purpose: str) -> None:
        """Noise, scale and apply the sum; an empty batch is a step like any other."""
        for p in self.optimizer.params:
            p.grad_sample = p.new_zeros(0, *p.shape)
        self.optimizer.noise = self.noise.stream(f"{purpose}/noise")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.unet)
        self.step += 1

    def save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "parameters": trainable(self.unet),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(self.checkpoint) as file:
            torch.save(state, file)

    def _load(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.step, self.seconds, self.stopped = state["step"], state["seconds"], state["stopped"]
        with torch.no_grad():
            for name, p in trainable(self.unet).items():
                p.copy_(state["parameters"][name])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])


def poisson_batch(size: int, sample_rate: float, noise: NoiseSource, purpose: str) -> np.ndarray:
    """Row numbers, each in with probability `sample_rate`, from the run's secret streams: int64, possibly empty."""
    return np.flatnonzero(noise.stream(f"{purpose}/batch").uniform(size) < sample_rate)
