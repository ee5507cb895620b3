"""A small generator of images, trained to have the mean embedding that a mechanism gave. It sees no private image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.images import to_uint8
from errors import require
from mean_embedding.features import FeatureMap
from models.checkpoints import load_training, save_training
from models.passes import in_passes
from models.seeds import derive, sample_noise, torch_rng
from tracking import ranks
from tracking.progress import Advance

LARGEST_SIDE = 64
CHECKPOINT_STEPS = 100
PASS_ROWS = 256
HIDDEN = 256


class Generator(nn.Module):
    """Codes and a class to an image: two dense layers, and two transposed convolutions that double the sides."""

    def __init__(self, shape: tuple[int, int, int], classes: int, code: int, width: int):
        super().__init__()
        self.code, self.classes, self.sides = code, classes, shape[:2]
        rows, columns = (math.ceil(side / 4) for side in self.sides)
        self.body = nn.Sequential(
            nn.Linear(code + classes, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, 4 * width * rows * columns), nn.BatchNorm1d(4 * width * rows * columns), nn.ReLU(),
            nn.Unflatten(1, (4 * width, rows, columns)),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, shape[2], 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[N, code] and int64 [N] to [N, C, H, W] in [-1, 1]"""
        height, width = self.sides
        onehot = nn.functional.one_hot(labels, self.classes).to(z.dtype)
        return self.body(torch.cat([z, onehot], 1))[:, :, :height, :width]


@dataclass(kw_only=True)
class GeneratorTraining:
    """How a generator is built and trained, by Adam, its learning rate falling by a cosine to 0."""

    steps: int = 1000  # of training
    batch_size: int = 100  # images of a step
    learning_rate: float = 1e-2  # of Adam
    code_size: int = 10  # numbers that an image is made from
    width: int = 16  # channels of its last layer but one
    num_generators: int = 1  # one after the other, from initial weights of their own; each makes an equal share of the samples

    def check_training(self, key: str, classes: int) -> None:
        least_of = {"steps": 1, "batch_size": 2 * classes, "code_size": 1, "width": 1, "num_generators": 1}
        for name, least in least_of.items():
            require(getattr(self, name) >= least, f"{key}.{name}", getattr(self, name), f"{least} or more")
        require(0 < self.learning_rate < math.inf, f"{key}.learning_rate", self.learning_rate, "a finite number above 0")

    def generator(self, shape: tuple[int, int, int], classes: int) -> Generator:
        return Generator(shape, classes, self.code_size, self.width)


def squared_distance(phi: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """MMD²: of the mean embedding of what φ [N, D], of norm 1, and int64 [N] are drawn from to `target` [K, D]; class c weighs
    `shares` [K].

    Without the bias that a mean over few images has (Gretton et al. 2012, Lemma 6). Every class needs two images.
    """
    onehot = torch.nn.functional.one_hot(labels, len(shares)).to(phi.dtype)  # [N, K]
    counts = onehot.sum(0)
    means = onehot.T @ phi / counts[:, None]  # [K, D]
    bias = shares**2 * (1 - (means**2).sum(1)) / (counts - 1)
    return ((shares[:, None] * means - target) ** 2).sum() - bias.sum()


def train(
    generator: Generator,
    features: FeatureMap,
    shares: np.ndarray,
    target: np.ndarray,
    settings: GeneratorTraining,
    seed: int,
    checkpoint: Path,
) -> Iterator[int]:
    """In place, towards the mean embedding `target` [K, D] of classes of `shares` [K], from a saved checkpoint where there is
    one; yields the number of steps so far."""
    device, rng = features.embedding.device, torch_rng(seed, "mean_embedding/codes")
    optimizer = torch.optim.Adam(generator.parameters(), settings.learning_rate)
    parts = {"generator": generator, "optimizer": optimizer}
    done = load_training(checkpoint, rng, device, **parts)
    weights, wanted = (torch.from_numpy(values).float().to(device) for values in (shares, target))
    labels = torch.arange(settings.batch_size, device=device) % len(shares)
    generator.train()
    for step in range(done + 1, settings.steps + 1):
        z = torch.randn(settings.batch_size, generator.code, generator=rng).to(device)
        loss = squared_distance(features.of_batch(generator(z, labels)), labels, weights, wanted)
        parameters = list(generator.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):  # the embedding's have none
            p.grad = gradient
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 + math.cos(math.pi * (step - 1) / settings.steps)) / 2
        optimizer.step()
        if step % CHECKPOINT_STEPS == 0 or step == settings.steps:
            save_training(checkpoint, step, rng, **parts)
        yield step
    generator.load_state_dict(ranks.broadcast(generator.state_dict()))  # processes may round differently
    generator.eval()


def fresh(settings: GeneratorTraining, shape: tuple[int, int, int], classes: int, seed: int, device: torch.device) -> Generator:
    """With initial weights from the public `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "mean_embedding/initial weights"))
        return settings.generator(shape, classes).to(device)


@torch.inference_mode()
def generate(generator: Generator, labels: np.ndarray, shape: tuple[int, int, int], seed: int, advance: Advance) -> np.ndarray:
    """uint8 [N, H, W, C], an image for each label."""
    device = next(generator.parameters()).device

    def make(rows: np.ndarray) -> np.ndarray:
        z = sample_noise(seed, "mean_embedding/samples", rows, (generator.code,)).to(device)
        return to_uint8(generator(z, torch.from_numpy(labels[rows]).to(device)))

    return in_passes(len(labels), PASS_ROWS, shape, make, advance)
