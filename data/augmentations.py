"""Random changes of images that leave their class as it is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch

from data.images import random_shift


class Augmentation(Enum):
    flip = "flip"  # left to right, with probability 1/2
    crop = "crop"  # shifted by up to 1/8 of the side either way, the border filled by its edge
    colour = "colour"  # brightness and contrast scaled by 0.8 … 1.2


def augmented(x: torch.Tensor, augmentations: Sequence[Augmentation], rng: torch.Generator) -> torch.Tensor:
    """Each image of float [N, C, H, W] in [-1, 1] by draws of its own, in the order given; `rng` is on the device of `x`."""
    for augmentation in augmentations:
        x = _AUGMENT[augmentation](x, rng)
    return x


def _flip(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    flipped = torch.rand(len(x), generator=rng, device=x.device) < 0.5
    return torch.where(flipped.reshape(-1, 1, 1, 1), x.flip(3), x)


def _crop(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return random_shift(x, max(1, x.shape[3] // 8), rng)


def _colour(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    contrast, brightness = 0.8 + 0.4 * torch.rand(2, len(x), 1, 1, 1, generator=rng, device=x.device)
    mean = x.mean((1, 2, 3), keepdim=True)
    return (((x - mean) * contrast + mean + 1) * brightness - 1).clamp(-1, 1)


_AUGMENT = {Augmentation.flip: _flip, Augmentation.crop: _crop, Augmentation.colour: _colour}
