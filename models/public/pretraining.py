"""Ordinary training on public images: what a public model is before any private image is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data.images import to_network
from data.samples import SampleSet
from errors import require
from models.api import Denoiser
from models.checkpoints import load_training, save_training
from models.diffusion.timesteps import Interval, check_mixture, draw_timesteps
from models.ema import EMA, trainable
from models.features.extractors import PublicFeatures
from models.seeds import torch_rng
from tracking import ranks
from tracking.progress import Advance


class LearningRate(Enum):
    one_cycle = "one_cycle"  # up to `learning_rate` in the share `warmup` of the steps, then down by a cosine to nearly nothing
    constant = "constant"  # up in the share `warmup` of the steps, then flat


@dataclass(kw_only=True)
class PretrainingConfig:
    """How a U-Net is trained on public images."""

    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 2e-3
    schedule: LearningRate = LearningRate.one_cycle
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    max_grad_norm: float = 1.0
    timestep_mixture: list[Interval] = field(default_factory=list)  # empty: uniform
    flip: bool = False  # left to right, with probability 1/2
    conditional: bool = True  # False: every image trains the null label
    label_dropout: float = 0.1  # share of images that train the null label, for classifier-free guidance
    classes: list[str] | None = None  # the public class that stands for each label of the model; the rest is left out
    checkpoint_steps: int = 1000

    def check(self, null_label: bool, num_steps: int) -> None:
        for key in ("steps", "batch_size", "checkpoint_steps"):
            require(getattr(self, key) >= 1, f"recipe.{key}", getattr(self, key), "1 or more")
        require(0 < self.learning_rate < float("inf"), "recipe.learning_rate", self.learning_rate, "a finite number above 0")
        require(0 <= self.warmup < 1, "recipe.warmup", self.warmup, "0 or more, and below 1")
        require(0 <= self.ema_decay < 1, "recipe.ema_decay", self.ema_decay, "0 (off) or more, and below 1")
        require(0 <= self.label_dropout < 1, "recipe.label_dropout", self.label_dropout, "0 (off) or more, and below 1")
        require(not self.label_dropout or null_label, "recipe.label_dropout", self.label_dropout, "0, as model.null_label=false")
        require(self.conditional or null_label, "recipe.conditional", self.conditional, "true, as model.null_label=false")
        if self.timestep_mixture:
            check_mixture("recipe.timestep_mixture", self.timestep_mixture, num_steps)


def stand_ins(samples: SampleSet, names: Sequence[str], classes: Sequence[str], labels: int) -> SampleSet:
    """The images of the public `classes`, of all `names`: those of classes[c] get label c. InputError unless each is one."""
    require(len(classes) == labels, "recipe.classes", f"{len(classes)} of them", f"one for each of model.labels={labels}")
    label_of = {}
    for label, name in enumerate(classes):
        known = f"{', '.join(names[:12])}{' …' * (len(names) > 12)}"
        require(name in names, "recipe.classes", name, f"names of public classes ({known})")
        label_of[names.index(name)] = label
    require(len(label_of) == labels, "recipe.classes", list(classes), "different classes")
    relabel = np.array([label_of.get(public, -1) for public in range(len(names))])[samples.labels]
    return SampleSet(samples.images[relabel >= 0], relabel[relabel >= 0], labels)


def pretrain(
    denoiser: Denoiser,
    samples: SampleSet,
    recipe: PretrainingConfig,
    seed: int,
    checkpoint: Path,
    bfloat16: bool = False,
    *,
    clean: SampleSet | None = None,
    noisy_from: float = 0.0,
) -> Iterator[int]:
    """Noise prediction on public images, from a saved checkpoint where there is one; yields the number of steps so far.

    `clean`: other images, for timesteps below the share `noisy_from` of all. Trained is what of the network is trainable; it ends
    with its averaged weights. Several processes make the same draws and share each batch.
    """
    unet, null_label, device = denoiser.network, denoiser.null_label, denoiser.device
    rng, a_bar = torch_rng(seed, "pretrain/unet"), torch.from_numpy(denoiser.alpha_bar).float()
    ema = EMA(unet, recipe.ema_decay)
    weights = list(trainable(unet).values())
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = _schedule(optimizer, recipe)
    parts = {"unet": unet, "ema": ema, "optimizer": optimizer, "schedule": schedule}
    done = load_training(checkpoint, rng, device, **parts)
    labels_of = torch.from_numpy(samples.labels)
    mixture = recipe.timestep_mixture
    unet.train()
    for step in range(done + 1, recipe.steps + 1):
        rows = torch.randint(len(samples), (recipe.batch_size,), generator=rng)
        images = samples.images[rows.numpy()]
        if recipe.flip:
            flipped = torch.rand(len(images), generator=rng) < 0.5
            images = np.where(flipped.numpy().reshape(-1, 1, 1, 1), images[:, :, ::-1], images)
        x = denoiser.encode(images).cpu()
        t = draw_timesteps(mixture, len(x), rng) if mixture else torch.randint(len(a_bar), (len(x),), generator=rng)
        labels = labels_of[rows]
        if clean is not None:
            others = torch.randint(len(clean), (len(x),), generator=rng)
            early = t < noisy_from * len(a_bar)
            x = torch.where(early.reshape(-1, 1, 1, 1), denoiser.encode(clean.images[others.numpy()]).cpu(), x)
            labels = torch.where(early, torch.from_numpy(clean.labels[others.numpy()]), labels)
        noise = torch.randn(x.shape, generator=rng)
        if null_label is not None:
            dropped = torch.rand(len(x), generator=rng) < (recipe.label_dropout if recipe.conditional else 1.0)
            labels = torch.where(dropped, null_label, labels)
        a = a_bar[t].reshape(-1, 1, 1, 1)
        mine = slice(ranks.share(), None, ranks.world())
        x_t, y = (a.sqrt() * x + (1 - a).sqrt() * noise)[mine].to(device), labels[mine].to(device)
        if len(x_t):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                predicted = denoiser.predict_noise(x_t, t[mine].to(device), y)
            (F.mse_loss(predicted, noise[mine].to(device)) * (len(x_t) / len(x))).backward()
        ranks.sum_over_ranks([gradient(p) for p in weights])
        torch.nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(unet)
        if (step % recipe.checkpoint_steps == 0 or step == recipe.steps) and ranks.share() == 0:
            save_training(checkpoint, step, rng, **parts)
        yield step
    ema.copy_to(unet)
    unet.eval()


def gradient(p: nn.Parameter) -> torch.Tensor:
    """Zeros where no image of this process has given one."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


def _schedule(optimizer: torch.optim.Optimizer, recipe: PretrainingConfig) -> Any:
    if recipe.schedule is LearningRate.one_cycle:
        return one_cycle(optimizer, recipe.learning_rate, recipe.steps, recipe.warmup)
    ramp = max(1.0, recipe.warmup * recipe.steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / ramp))


def one_cycle(optimizer: torch.optim.Optimizer, highest: float, steps: int, share: float) -> Any:
    """Up to `highest` in this share of the steps, and down by a cosine."""
    share *= 1 + 1e-6 * (share * steps == 1)  # torch divides by the steps to rise in, less 1
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps, pct_start=share)


def train_features(
    samples: SampleSet, steps: int, batch_size: int, seed: int, advance: Advance, device: torch.device | None = None
) -> PublicFeatures:
    """Classification with shifts and pixel noise."""
    torch.manual_seed(seed)
    network = PublicFeatures(samples.images.shape[3], samples.num_classes).to(device)
    rng = torch_rng(seed, "pretrain/features")
    labels = torch.from_numpy(samples.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(samples), (batch_size,), generator=rng)
        x = to_network(samples.images[rows.numpy()])
        noisy = x + 0.2 * torch.randn(x.shape, generator=rng)
        shift = int(torch.randint(-1, 2, (1,), generator=rng))
        x, y = torch.roll(noisy, shift, dims=3).to(device), labels[rows].to(device)
        loss = F.cross_entropy(network(x), y, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        advance(1)
    return network
