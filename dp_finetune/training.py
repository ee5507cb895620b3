"""The DP-SGD loop: Poisson batches, K views an example, clipped sums, one noise a step. One loop serves every method.

What differs between methods is which parameters are trainable. The loop yields after every step; losses, gradient norms
and clipping fractions on private data are private, and are computed nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data.private import PrivateDataset
from data.samples import SampleSet
from disk import whole_file
from dp_finetune.engines import Engine
from dp_finetune.objective import DrawsViews
from models.ema import EMA, trainable
from privacy.mechanisms import SampledGaussian
from privacy.noise import NoiseSource
from tracking import ranks

if TYPE_CHECKING:
    from dp_finetune.optimizer import PrivateOptimizer

CHECKPOINT_SECONDS = 30.0  # the only clock here: when a checkpoint is written changes nothing in what is trained or spent
NOBODY = -1  # the row number of the black images that fill up a pass


@dataclass
class Trainer:
    network: Any  # U-Net or classifier
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

    def train(self, private: PrivateDataset, steps: int) -> Iterator[int]:
        """Take steps until `steps` are taken, from a saved checkpoint where there is one; yields their number so far.

        Every step is spent for and drawn from streams of its own number, so a step that is taken again after a kill is the
        same step, with the same batch and the same noise.
        """
        self._load()
        for step in range(1, self.step + 1):  # spent, whatever became of the ledger's file
            private.spend(f"dp_sgd/step={step}", self.mechanism)
        if self.step:
            yield self.step
        saved = time.monotonic()
        self.network.eval()  # dropout would make another step of one that is taken again after a kill
        while self.step < steps:
            step = self.step + 1
            purpose = f"dp_sgd/step={step}"
            samples = private.spend(purpose, self.mechanism)
            labels = self.model_labels[samples.labels if len(self.model_labels) > 1 else np.zeros_like(samples.labels)]
            batch = poisson_batch(samples.num_units, self.mechanism.sample_rate, self.noise, purpose)
            mine = batch[ranks.share() :: ranks.world()]
            for start in range(0, len(mine), self.engine.examples_per_pass):
                rows = mine[start : start + self.engine.examples_per_pass]
                images = self.images_of(samples, rows, step)
                self.add(samples.images[images], labels[images], rows, step)
            self.finish_step(purpose)
            if time.monotonic() - saved > CHECKPOINT_SECONDS or self.step == steps:
                self.save()
                saved = time.monotonic()
            yield self.step

    def images_of(self, samples: SampleSet, rows: np.ndarray, step: int) -> np.ndarray:
        """Which images these units show: rows of `samples`, int64 [n], or [n, K] of users, whose K views are drawn over their
        images by the run's secret key: as many draws for a user of one image as for one of a thousand."""
        if samples.units is None:
            return rows
        count, drawn = self.objective.augmult, []
        for row in rows:
            mine = samples.units[row]
            rng = np.random.default_rng(self.noise.seed(f"images/{step}/{row}"))
            drawn.append(mine[rng.integers(0, len(mine), count)])
        return np.array(drawn, np.int64).reshape(len(rows), count)

    def add(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, step: int) -> None:
        """Add the clipped gradients of these examples to the sum: uint8 [n, H, W, C], int64 [n], or [n, K, H, W, C] and [n, K];
        `n` is at most a pass's size.

        Every pass has the same size: the last one of a batch is filled up, and what fills it is left out of the sum. Kernels
        round by the shape of a pass, so otherwise an example's gradient would depend on how many others were drawn (by 1e-6 of
        it). On a processor it then depends, to the last bit, neither on the images beside it nor on its place among them; a
        GPU's kernels do not promise that.
        """
        count, size = len(rows), self.engine.examples_per_pass
        full = np.zeros((size, *images.shape[1:]), np.uint8)
        told, numbers = np.full((size, *labels.shape[1:]), self.model_labels[0]), np.full(size, NOBODY)
        full[:count], told[:count], numbers[:count] = images, labels, rows
        x = self.objective.encode(full.reshape(-1, *full.shape[-3:])).unflatten(0, full.shape[:-3])
        self.engine(self.objective.views(x, torch.from_numpy(told), numbers.tolist(), step))
        for p in self.engine.parameters:
            p.grad_sample = p.grad_sample[:count]  # type: ignore[attr-defined]
        self.optimizer.signal_skip_step(True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def finish_step(self, purpose: str) -> None:
        """Noise, scale and apply the sum; an empty batch is a step like any other."""
        for p in self.optimizer.params:
            p.grad_sample = p.new_zeros(0, *p.shape)
        self.optimizer.noise = self.noise.stream(f"{purpose}/noise")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network)
        self.step += 1

    def save(self) -> None:
        state = {
            "step": self.step,
            "parameters": trainable(self.network),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(self.checkpoint) as file:
            torch.save(state, file)

    def _load(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.step = state["step"]
        with torch.no_grad():
            for name, p in trainable(self.network).items():
                p.copy_(state["parameters"][name])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])


def poisson_batch(size: int, sample_rate: float, noise: NoiseSource, purpose: str) -> np.ndarray:
    """Row numbers, each in with probability `sample_rate`, from the run's secret streams: int64, possibly empty."""
    return np.flatnonzero(noise.stream(f"{purpose}/batch").bernoulli(sample_rate, size))
