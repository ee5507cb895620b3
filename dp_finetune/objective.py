"""The DP training loss of one example: noise prediction, averaged over K views (Ghalebikesabi et al. 2023, §4.1).

A view is the example under its own flip, crop, colour, timestep and noise. The mean of the K losses is the loss of the
example, so its gradient is the mean of the views' gradients, and clipping sees one gradient an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from data.augmentations import Augmentation, augmented
from models.api import Denoiser
from models.diffusion.timesteps import Interval, draw_timesteps
from privacy.noise import NoiseSource


class ViewsLike(Protocol):
    """K views of each of B examples, flattened example by example into B·K rows, and their losses."""

    examples: int  # B

    @property
    def augmult(self) -> int:
        """K"""
        ...

    def part(self, rows: slice, examples: int = 1) -> ViewsLike: ...

    def losses(self, network: Any, bfloat16: bool = False) -> torch.Tensor:
        """float32 [B·K]; the network may compute in bfloat16."""
        ...


class DrawsViews(Protocol):
    """What a training loop minimises."""

    augmult: int  # K

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """uint8 [B, H, W, C] to float [B, c, h, w] on the network's device: what views are made of."""
        ...

    def views(self, x: torch.Tensor, labels: torch.Tensor, examples: Sequence[int], step: int) -> ViewsLike:
        """`x` [B, c, h, w] as `encode` gives it, or [B, K, c, h, w] with labels [B, K]; `examples` are the numbers of the units,
        which seed the views with the step."""
        ...


@dataclass
class Views:
    """K views of each of B examples, flattened example by example into B·K rows."""

    x_t: torch.Tensor  # [B·K, C, H, W]
    t: torch.Tensor  # int64 [B·K]
    labels: torch.Tensor  # int64 [B·K]
    noise: torch.Tensor  # [B·K, C, H, W]
    examples: int  # B
    denoiser: Denoiser  # how a network is asked for the noise

    @property
    def augmult(self) -> int:
        return len(self.t) // self.examples

    def part(self, rows: slice, examples: int = 1) -> Views:
        return Views(self.x_t[rows], self.t[rows], self.labels[rows], self.noise[rows], examples, self.denoiser)

    def losses(self, network: Any, bfloat16: bool = False) -> torch.Tensor:
        return view_losses(network, self, bfloat16)


@dataclass
class Objective:
    """Draws views and computes their losses. View randomness is seeded by (key, step, example): any batching gives the same.

    The key is the run's secret. With a public one, the views of an image would be a known function of its row number, and
    removing an image would change those of all later rows; with a secret one they are as good as drawn afresh in any row.
    """

    denoiser: Denoiser
    mixture: Sequence[Interval]
    augmult: int
    augmentations: Sequence[Augmentation]
    label_dropout: float  # share of views that train the null label, where the denoiser has one
    noise: NoiseSource

    @cached_property
    def alpha_bar(self) -> torch.Tensor:
        """float32 [T]"""
        return torch.from_numpy(self.denoiser.alpha_bar).float().to(self.denoiser.device)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        return self.denoiser.encode(images)

    def views(self, x: torch.Tensor, labels: torch.Tensor, examples: Sequence[int], step: int) -> Views:
        rng = torch.Generator(x.device)
        drawn = [self._draw(x[i], labels[i], rng.manual_seed(view_seed(self.noise, step, n))) for i, n in enumerate(examples)]
        x_0, noise, t, y = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        return Views(a.sqrt() * x_0 + (1 - a).sqrt() * noise, t, y, noise, len(examples), self.denoiser)

    def _draw(
        self, x: torch.Tensor, label: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        k, device = self.augmult, x.device
        x_0 = augmented(x.expand(k, *x.shape[-3:]), self.augmentations, rng)  # [K, C, H, W]
        t = draw_timesteps(self.mixture, k, rng)
        noise = torch.randn(x_0.shape, generator=rng, device=device)
        labels = label.to(device).expand(k)
        null_label = self.denoiser.null_label
        if self.label_dropout and null_label is not None:
            dropped = torch.rand(k, generator=rng, device=device) < self.label_dropout
            labels = torch.where(dropped, null_label, labels)
        return x_0, noise, t, labels


def dummy_views(denoiser: Denoiser, examples: int, augmult: int) -> Views:
    """Of random images, to time the network on."""
    like, t, labels = denoiser.dummy_inputs(examples * augmult)
    x = torch.randn_like(like)
    return Views(x, t, labels, x, examples, denoiser)


def view_seed(noise: NoiseSource, step: int, example: int) -> int:
    return noise.seed(f"view/{step}/{example}")


def view_losses(network: Any, views: Views, bfloat16: bool = False) -> torch.Tensor:
    """Mean squared error of the predicted noise, [B·K]; the network may compute in bfloat16, weights and losses are float32."""
    with torch.autocast(views.x_t.device.type, torch.bfloat16, enabled=bfloat16):
        predicted = views.denoiser.predict_noise(views.x_t, views.t, views.labels, network)
    return F.mse_loss(predicted, views.noise, reduction="none").flatten(1).mean(1)
