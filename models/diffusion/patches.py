"""Patches: pixel-unshuffle in front of a U-Net and shuffle behind it (Shi et al. 2016, §2.2, the other way round).

An image of S×S becomes one of S/p × S/p with p² times the channels, so that a small U-Net serves a large image. It is a
permutation of the pixels: noise stays noise, and the loss the same loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def patched_size(image_size: int, patch: int, levels: int) -> int:
    """The side of what a U-Net of so many levels works on: enough for the image, and halved by every level without a rest.

    >>> patched_size(28, 4, levels=2)    # a 28×28 image padded to 32
    8
    """
    if patch == 1:
        return image_size
    divisor = 2 ** (levels - 1)
    return -(-image_size // (patch * divisor)) * divisor


def to_patches(x: torch.Tensor, patch: int, size: int) -> torch.Tensor:
    """[N, C, S, S], with zeros around it up to patch · size, to [N, C p², size, size]."""
    if patch == 1:
        return x
    missing = patch * size - x.shape[-1]
    before = missing // 2
    return F.pixel_unshuffle(F.pad(x, (before, missing - before) * 2), patch)


def from_patches(x: torch.Tensor, patch: int, image_size: int) -> torch.Tensor:
    """What `to_patches` made, [N, C p², size, size], to [N, C, image_size, image_size]."""
    if patch == 1:
        return x
    whole = F.pixel_shuffle(x, patch)
    before = (whole.shape[-1] - image_size) // 2
    return whole[..., before : before + image_size, before : before + image_size]
