"""The DP training loss of one example: noise prediction, averaged over K views (Ghalebikesabi et al. 2023, §4.1).

A view is the example under its own flip, crop, colour, timestep and noise. The mean of the K losses is the loss of the
example, so its gradient is the mean of the views' gradients, and clipping sees one gradient an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from data.augmentations import Augmentation, augmented
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

    def views(self, x: torch.Tensor, labels: torch.Tensor, examples: Sequence[int], step: int) -> ViewsLike:
        """`x` float [B, C, H, W] in [-1, 1]; `examples` are the dataset's row numbers, which seed the views with the step."""
        ...


@dataclass
class Views:
    """K views of each of B examples, flattened example by example into B·K rows."""

    x_t: torch.Tensor  # [B·K, C, H, W]
    t: torch.Tensor  # [B·K], as the network is told it
    labels: torch.Tensor  # int64 [B·K]
    noise: torch.Tensor  # [B·K, C, H, W]
    examples: int  # B

    @property
    def augmult(self) -> int:
        return len(self.t) // self.examples

    def part(self, rows: slice, examples: int = 1) -> Views:
        return Views(self.x_t[rows], self.t[rows], self.labels[rows], self.noise[rows], examples)

    def losses(self, network: Any, bfloat16: bool = False) -> torch.Tensor:
        return view_losses(network, self, bfloat16)


@dataclass
class Objective:
    """Draws views and computes their losses. View randomness is seeded by (key, step, example): any batching gives the same.

    The key is the run's secret. With a public one, the views of an image would be a known function of its row number, and
    removing an image would change those of all later rows; with a secret one they are as good as drawn afresh in any row.
    """

    mixture: Sequence[Interval]
    augmult: int
    augmentations: Sequence[Augmentation]
    alpha_bar: torch.Tensor  # float32 [T]
    null_label: int | None  # with label_dropout: the label of classifier-free guidance
    label_dropout: float
    noise: NoiseSource
    timestep_scale: float = 1.0  # what the network is told for timestep t is t times this

    def views(self, x: torch.Tensor, labels: torch.Tensor, examples: Sequence[int], step: int) -> Views:
        """`x` float [B, C, H, W] in [-1, 1]; `examples` are the dataset's row numbers."""
        rng = torch.Generator(x.device)
        drawn = [
            self._draw(x[i], int(labels[i]), rng.manual_seed(view_seed(self.noise, step, n))) for i, n in enumerate(examples)
        ]
        x_0, noise, t, y = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        told = t if self.timestep_scale == 1 else t * self.timestep_scale
        return Views(a.sqrt() * x_0 + (1 - a).sqrt() * noise, told, y, noise, len(examples))

    def _draw(
        self, x: torch.Tensor, label: int, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        k, device = self.augmult, x.device
        x_0 = augmented(x.expand(k, *x.shape), self.augmentations, rng)  # [K, C, H, W]
        t = draw_timesteps(self.mixture, k, rng)
        noise = torch.randn(x_0.shape, generator=rng, device=device)
        labels = torch.full((k,), label, device=device)
        if self.label_dropout and self.null_label is not None:
            dropped = torch.rand(k, generator=rng, device=device) < self.label_dropout
            labels = torch.where(dropped, self.null_label, labels)
        return x_0, noise, t, labels


def views_of_nothing(unet: Any, examples: int, augmult: int) -> Views:
    """Random images in the shape of a U-Net, to time it on."""
    config, device, rows = unet.config, next(unet.parameters()).device, examples * augmult
    x = torch.randn(rows, config.in_channels, config.sample_size, config.sample_size, device=device)
    zeros = torch.zeros(rows, dtype=torch.int64, device=device)
    return Views(x, zeros, zeros, x, examples)


def view_seed(noise: NoiseSource, step: int, example: int) -> int:
    return noise.seed(f"view/{step}/{example}")


def view_losses(unet: Any, views: Views, bfloat16: bool = False) -> torch.Tensor:
    """Mean squared error of the predicted noise, [B·K]; the network may compute in bfloat16, weights and losses are float32."""
    with torch.autocast(views.x_t.device.type, torch.bfloat16, enabled=bfloat16):
        predicted = unet(views.x_t, views.t, views.labels if unet.config.num_class_embeds else None).sample
    return F.mse_loss(predicted[:, : views.noise.shape[1]].float(), views.noise, reduction="none").flatten(1).mean(1)
