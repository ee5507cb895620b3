"""Latents: what a frozen, public autoencoder makes of images, and back (Rombach et al. 2022, §3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from data.images import to_network, to_uint8
from models.diffusion.stored import VAE, save_part

MOST_ROWS, PIXELS = 64, 1 << 18  # images that are encoded or decoded at a time, and pixels of theirs


@dataclass
class Autoencoder:
    """An `AutoencoderKL` of diffusers for images of `image_size`, padded with black to `side` · factor pixels.

    A latent is the mean of the posterior times the scaling factor, so that its variance on public images is about 1. All passes
    of a call have the same number of rows, which follows from the number of images alone: so, on a processor, an image's latent
    depends to the last bit neither on the images beside it nor on its place among them.
    """

    network: Any
    image_size: int
    side: int  # of the latents

    def __post_init__(self) -> None:
        self.network.requires_grad_(False).eval()

    def save(self, folder: Path) -> None:
        save_part(self.network, folder / VAE)

    @property
    def channels(self) -> int:
        return self.network.config.latent_channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        return (self.image_size, self.image_size, self.network.config.in_channels)

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> torch.Tensor:
        """uint8 [N, H, W, C] to float32 [N, c, h, w], on the network's device."""
        device = next(self.network.parameters()).device
        rows, parts = self._rows(len(images)), [torch.zeros(0, self.channels, self.side, self.side, device=device)]
        for start in range(0, len(images), rows):
            part = images[start : start + rows]
            x = self.padded(to_network(_filled(part, rows), device))
            z = self.network.encode(x).latent_dist.mean * self.network.config.scaling_factor
            parts.append(z[: len(part)])
        return torch.cat(parts)

    def _rows(self, count: int) -> int:
        """Of each pass of so many images: as few passes as there have to be, all alike."""
        most = max(1, min(MOST_ROWS, PIXELS // (self.side * factor(self.network.config)) ** 2))
        return math.ceil(count / max(1, math.ceil(count / most))) or 1

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, C, H, W] with black around it."""
        missing = self.side * factor(self.network.config) - self.image_size
        before = missing // 2
        return F.pad(x, (before, missing - before) * 2, value=-1.0)

    @torch.no_grad()
    def decode(self, z: torch.Tensor) -> np.ndarray:
        """float [N, c, h, w] to uint8 [N, H, W, C]."""
        before = (self.side * factor(self.network.config) - self.image_size) // 2
        inside = slice(before, before + self.image_size)
        rows, parts = self._rows(len(z)), [np.zeros((0, *self.image_shape), np.uint8)]
        for start in range(0, len(z), rows):
            x = self.network.decode(z[start : start + rows] / self.network.config.scaling_factor).sample
            parts.append(to_uint8(x[..., inside, inside]))
        return np.concatenate(parts)


def _filled(images: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([images, np.zeros((rows - len(images), *images.shape[1:]), np.uint8)])


def factor(config: Any) -> int:
    """How many pixels one latent is wide."""
    return 2 ** (len(config["block_out_channels"]) - 1)
