"""The one conversion between stored images (uint8, channels last) and network inputs (float, channels first)."""

from __future__ import annotations

import numpy as np
import torch


def to_network(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 [N, H, W, C] in 0…255 to float32 [N, C, H, W] in [-1, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return x.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)  # [N, C, H, W]


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """Float [N, C, H, W] in [-1, 1] (clipped) to uint8 [N, H, W, C], rounded to nearest: the inverse of `to_network`."""
    pixels = x.detach().clamp(-1, 1).add(1.0).mul(127.5).round()
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # [N, H, W, C]
