"""The one conversion between stored images (uint8, channels last) and network inputs (float, channels first)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def to_network(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 [N, H, W, C] in 0…255 to float32 [N, C, H, W] in [-1, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return x.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)  # [N, C, H, W]


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """Float [N, C, H, W] in [-1, 1] (clipped) to uint8 [N, H, W, C], rounded to nearest: the inverse of `to_network`."""
    pixels = x.detach().clamp(-1, 1).add(1.0).mul(127.5).round()
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # [N, H, W, C]


def conform(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [N, H, W, C] to uint8 [N, *shape], as `resized` does."""
    if images.shape[1:] == shape:
        return images
    out = np.empty((len(images), *shape), np.uint8)
    for i, pixels in enumerate(images):
        out[i] = resized(to_image(pixels), shape)
    return out


def to_image(pixels: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1 or 3]"""
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def resized(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [*shape]: grey by ITU-R 601 luma, or repeated; resized by PIL's antialiased bicubic."""
    height, width, channels = shape
    mode = {1: "L", 3: "RGB"}[channels]
    image = image if image.mode == mode else image.convert(mode)
    image = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(shape)


def random_shift(x: torch.Tensor, pad: int, rng: torch.Generator) -> torch.Tensor:
    """Each image of float [N, C, H, W] moved by up to `pad` pixels either way, the border filled by its edge."""
    n, _, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad), mode="replicate")
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=rng, device=rng.device)
    rows = top[:, None] + torch.arange(height, device=rng.device)  # [N, H]
    cols = left[:, None] + torch.arange(width, device=rng.device)  # [N, W]
    example = torch.arange(n, device=rng.device)[:, None, None]
    return padded[example, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
