"""Downstream utility: train a classifier on the samples, test it on real images, once, at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from data.dataset import Dataset
from data.images import random_shift, to_network
from data.samples import SampleSet
from errors import require
from eval.evaluator import Cost, Evaluator, Subject
from models.classifiers import WideResNet
from models.config import Model
from models.flops import network_flops
from models.seeds import derive, torch_rng
from tracking.progress import Advance, progress


@dataclass(kw_only=True)
class Downstream(Evaluator):
    """WRN-40-4 trained on the samples, tested on the real test split; mean and spread over `seeds` trainings."""

    seeds: int = 1
    steps: int = 200
    batch_size: int = 128

    def check(self, key: str, dataset: Dataset, model: Model) -> None:
        require(self.seeds >= 1, f"{key}.seeds", self.seeds, "1 or more")
        require(self.steps >= 1, f"{key}.steps", self.steps, "1 or more")
        require(self.batch_size >= 2, f"{key}.batch_size", self.batch_size, "2 or more")

    def cost(self, dataset: Dataset, model: Model, num_samples: int) -> Cost:
        height, width, channels = dataset.shape
        with torch.device("meta"):
            forward = network_flops(WideResNet(40, 4, channels, max(2, len(dataset.classes))), dataset.shape)
        return Cost(3.0 * forward * self.seeds * self.steps * self.batch_size, self.batch_size * height * width * 8_000)

    def evaluate(self, subject: Subject) -> Iterator[tuple[str, float]]:
        if subject.samples.num_classes < 2:
            return  # samples without classes train no classifier
        scores = []
        with progress("WRN-40-4 on the samples", self.seeds * self.steps) as advance:
            for i in range(self.seeds):
                network = train_wrn(
                    subject.samples,
                    seed=subject.seed + i,
                    steps=self.steps,
                    batch_size=self.batch_size,
                    device=subject.device,
                    advance=advance,
                )
                scores.append(accuracy(network, subject.test, subject.device))
        mean, spread = mean_and_spread(scores)
        yield "wrn40_4/accuracy", mean
        yield "wrn40_4/accuracy_spread", spread
        yield "wrn40_4/accuracy_seeds", float(self.seeds)


def train_wrn(
    samples: SampleSet, *, seed: int, steps: int, batch_size: int, device: torch.device, advance: Advance
) -> WideResNet:
    """WRN-40-4 with SGD (Nesterov 0.9, weight decay 5e-4), one-cycle cosine rate up to 0.1, random shifts by 1/8 of the side.

    Nothing but `samples` is looked at: no early stopping, no selection.
    """
    rng = torch_rng(seed, "eval/wrn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "eval/wrn/weights"))
        network = WideResNet(40, 4, channels=samples.images.shape[3], num_classes=samples.num_classes)
    network = network.to(device).train()
    images, labels = torch.from_numpy(samples.images), torch.from_numpy(samples.labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.15)
    pad = max(1, samples.images.shape[1] // 8)
    for _ in range(steps):
        rows = torch.randint(len(images), (batch_size,), generator=rng)
        x = random_shift(to_network(images[rows].numpy()), pad, rng).to(device)
        loss = F.cross_entropy(network(x), labels[rows].to(device))
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        advance(1)
    return network


@torch.inference_mode()
def accuracy(network: torch.nn.Module, test: SampleSet, device: torch.device, batch_size: int = 512) -> float:
    """Share of test images classified correctly, 0 … 1."""
    network.eval()
    right = 0
    for start in range(0, len(test), batch_size):
        logits = network(to_network(test.images[start : start + batch_size], device))
        right += int((logits.argmax(1).cpu().numpy() == test.labels[start : start + batch_size]).sum())
    return right / len(test)


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
