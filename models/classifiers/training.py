"""Ordinary training of classifiers: one recipe, one trainer, for samples that are judged and for public images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import update_bn

from data.augmentations import Augmentation, augmented
from data.images import to_network
from data.samples import SampleSet
from data.shards import Shards
from errors import require
from models.classifiers.networks import Classifier, ClassifierName, Norm, build_classifier, has_dropout
from models.ema import EMA
from models.flops import pass_costs
from models.seeds import derive, torch_rng
from tracking.progress import Advance

_BATCHES_FOR_NORMS = 50


class LearningRateSchedule(Enum):
    one_cycle = "one_cycle"  # up to `learning_rate` in 15 % of the steps, then down to nearly nothing
    constant = "constant"
    cosine = "cosine"  # from `learning_rate` down to 0


@dataclass(kw_only=True)
class Recipe:
    """A classifier and how it is trained, by SGD."""

    classifier: ClassifierName = ClassifierName.wrn40_4  # the network
    norm: Norm = Norm.batch  # of activations
    dropout: float = 0.0  # of wide ResNets
    steps: int = 200  # of training
    batch_size: int = 128  # samples; each is `augmult` images
    pass_size: int | None = None  # images that go through the network at once; null: the batch. Batch norm sees one pass
    learning_rate: float = 0.1  # the highest
    schedule: LearningRateSchedule = LearningRateSchedule.one_cycle  # of the learning rate
    momentum: float = 0.9  # of SGD
    nesterov: bool = True  # Nesterov's form of momentum
    weight_decay: float = 5e-4  # of SGD
    label_smoothing: float = 0.0  # share of a label that goes to all classes
    balance_classes: bool = False  # weigh a sample's loss by N / (K · samples of its class): rare classes count as common ones do
    ema_decay: float = 0.0  # of the weights that are kept; 0 is off
    augmult: int = 1  # copies of each sample in a batch, each augmented on its own
    augmentations: list[Augmentation] = field(default_factory=lambda: [Augmentation.crop])  # of each copy

    def check_recipe(self, key: str) -> None:
        """Raise InputError for settings that cannot be used; `key` is where they are, such as eval.downstream."""
        for name, least in (("steps", 1), ("batch_size", 2), ("augmult", 1)):
            require(getattr(self, name) >= least, f"{key}.{name}", getattr(self, name), f"{least} or more")
        least = max(4, 2 * self.augmult)
        require(
            self.pass_size is None or self.pass_size >= least, f"{key}.pass_size", self.pass_size, f"{least} or more, or null"
        )
        require(0 < self.learning_rate < np.inf, f"{key}.learning_rate", self.learning_rate, "a finite number above 0")
        require(0 <= self.weight_decay < np.inf, f"{key}.weight_decay", self.weight_decay, "a finite number that is 0 or more")
        for name in ("dropout", "momentum", "label_smoothing", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"{key}.{name}", getattr(self, name), "0 (off) or more, and below 1")
        allowed = f"0, as classifier={self.classifier.value} has none"
        require(not self.dropout or has_dropout(self.classifier), f"{key}.dropout", self.dropout, allowed)
        require(not self.nesterov or self.momentum > 0, f"{key}.nesterov", self.nesterov, "false, as momentum=0")
        fixed = self.schedule is LearningRateSchedule.one_cycle and self.momentum != 0.9
        require(not fixed, f"{key}.momentum", self.momentum, "0.9, as schedule=one_cycle moves it between 0.85 and 0.95")

    def network(self, channels: int, num_classes: int) -> Classifier:
        return build_classifier(self.classifier, channels, num_classes, self.norm, self.dropout)

    def optimizer(self, network: torch.nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(
            network.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def rates(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        match self.schedule:
            case LearningRateSchedule.one_cycle:
                return lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.steps, pct_start=0.15)
            case LearningRateSchedule.cosine:
                return lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            case LearningRateSchedule.constant:
                return lr_scheduler.ConstantLR(optimizer, factor=1.0)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """`weights` float [K] of classes, as `class_weights` gives them."""
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.label_smoothing)

    def class_weights(self, samples: SampleSet, device: torch.device) -> torch.Tensor | None:
        """float32 [K], or None where every sample counts alike; a class without samples has 0."""
        if not self.balance_classes:
            return None
        counts = np.bincount(samples.labels, minlength=samples.num_classes)
        weights = np.where(counts > 0, len(samples) / (len(counts) * counts.clip(1)), 0.0)
        return torch.from_numpy(weights).float().to(device)

    def passes(
        self, images: np.ndarray, labels: np.ndarray, rng: torch.Generator, device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """The batch as parts of at most `pass_size` augmented images: x, labels, and which share of the batch they are."""
        count = 1 if self.pass_size is None else -(-len(images) // (self.pass_size // self.augmult))
        for part, y in zip(np.array_split(images, count), np.array_split(labels, count), strict=True):
            x = to_network(part, device).repeat_interleave(self.augmult, 0)  # [B·K, C, H, W]
            x = augmented(x, self.augmentations, rng)
            yield x, torch.from_numpy(y).to(device).repeat_interleave(self.augmult), len(part) / len(images)

    def step_cost(self, shape: tuple[int, int, int], num_classes: int) -> tuple[float, int]:
        """FLOPs of a step, and bytes of what it keeps for the backward pass and of the network with what it trains by."""
        with torch.device("meta"):
            network = self.network(shape[2], num_classes)
        each, images = pass_costs(network, shape, 1), self.batch_size * self.augmult
        weights = 4 * sum(p.numel() for p in network.parameters())
        kept = min(images, self.pass_size or images) * each.kept
        return 3.0 * each.flops * images, kept + (4 if self.ema_decay else 3) * weights


def train(
    samples: SampleSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    advance: Advance,
    start: Classifier | None = None,
    stream: str = "eval/wrn",
) -> Classifier:
    """A classifier, from fresh weights or from those of `start` with a new head.

    Nothing but `samples`, `recipe`, `start` and the stream of the seed is looked at: no early stopping, no selection.
    """
    rng = torch_rng(seed, stream)
    changes = rng if device.type == "cpu" else torch.Generator(device).manual_seed(derive(seed, f"{stream}/augment"))
    with _own_generator(derive(seed, f"{stream}/weights"), device):
        if start is None:
            network = recipe.network(_channels(samples), samples.num_classes)
        else:
            network = copy.deepcopy(start)
            network.replace_head(samples.num_classes)
        network = network.to(device).train()
        optimizer = recipe.optimizer(network)
        rates = recipe.rates(optimizer)
        average = EMA(network, recipe.ema_decay) if recipe.ema_decay else None
        batches, weights = drawn(samples, recipe.batch_size, rng), recipe.class_weights(samples, device)
        for images, labels in islice(batches, recipe.steps):
            for x, y, share in recipe.passes(images, labels, changes, device):
                (share * recipe.loss(network(x), y, weights)).backward()
            optimizer.step()
            rates.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.update(network)
            advance(1)
        if average:
            average.copy_to(network)
            some = islice(batches, min(recipe.steps, _BATCHES_FOR_NORMS))
            update_bn((x for batch in some for x, *_ in recipe.passes(*batch, changes, device)), network)
    return network.eval()


def drawn(samples: SampleSet, batch_size: int, rng: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end: rows with replacement or, of shards, in passes."""
    if isinstance(samples, Shards):
        yield from samples.batches(batch_size, rng)
    while True:
        rows = torch.randint(len(samples), (batch_size,), generator=rng).numpy()
        yield samples.images[rows], samples.labels[rows]


@torch.inference_mode()
def logits(network: torch.nn.Module, samples: SampleSet, device: torch.device, batch_size: int = 512) -> np.ndarray:
    """float32 [N, classes]"""
    network.to(device).eval()
    parts = [samples[start : start + batch_size].images for start in range(0, len(samples), batch_size)]
    return np.concatenate([network(to_network(images, device)).float().cpu().numpy() for images in parts])


def accuracy(network: torch.nn.Module, test: SampleSet, device: torch.device, batch_size: int = 512) -> float:
    """Share of test images classified correctly, 0 … 1."""
    return right(logits(network, test, device, batch_size), test)


def right(scores: np.ndarray, test: SampleSet) -> float:
    """Share of rows of logits [N, classes] whose largest is that of the label, 0 … 1."""
    return int((scores.argmax(1) == test.labels).sum()) / len(test)


def balanced(scores: np.ndarray, test: SampleSet) -> float:
    """Balanced accuracy: the mean over the classes of `test` of the share of each that is right, 0 … 1."""
    correct = scores.argmax(1) == test.labels
    return float(np.mean([correct[test.labels == label].mean() for label in np.unique(test.labels)]))


def _channels(samples: SampleSet) -> int:
    return samples.files.shape[2] if isinstance(samples, Shards) else samples.images.shape[3]


@contextmanager
def _own_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Initial weights and dropout draw from torch's global generator, which is as it was afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
