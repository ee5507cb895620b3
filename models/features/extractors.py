"""Embeddings: a network that maps images to vectors, learned on public images alone."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from data.images import to_network
from errors import reason, unusable
from models.passes import embed_in_passes

PASS_ROWS = 512


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the names, shapes and float32 values of its weights. Released adapters name their base by it."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


class PublicFeatures(nn.Module):
    """A small CNN trained to classify the public images; its features are the activations before the last layer."""

    def __init__(self, channels: int = 1, num_classes: int = 10, width: int = 32, dim: int = 64):
        super().__init__()
        self.channels, self.dim = channels, dim
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.GroupNorm(8, 2 * width), nn.SiLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2 * width * 16, dim),
        )  # fmt: skip
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(dim, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    @property
    def identity(self) -> str:
        return weights_digest(self)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def perceive(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] in [-1, 1] to [N, D]: the activations of every layer, then the features."""
        seen = []
        for layer in self.body:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                seen.append(x.flatten(1))
        return torch.cat([*seen, x], 1)

    @torch.inference_mode()
    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Of the public classes: float32 [N, dim] to [N, num_classes]."""
        return self.head(torch.from_numpy(vectors).to(self.device)).cpu().numpy()

    @torch.inference_mode()
    def embed(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to float32 [N, dim]; an image's row does not depend on the others."""
        self.eval()
        return embed_in_passes(images, PASS_ROWS, self.dim, lambda batch: self.body(to_network(batch, self.device)))


def stored_features(file: Path, key: str) -> PublicFeatures:
    """The extractor in a safetensors file, as shapes without weights. InputError that names `key` where there is none."""
    try:
        with safe_open(file, "pt") as stored:
            width, channels = stored.get_slice("body.0.weight").get_shape()[:2]
            num_classes, dim = stored.get_slice("head.1.weight").get_shape()
        with torch.device("meta"):
            return PublicFeatures(channels, num_classes, width, dim)
    except (OSError, ValueError, SafetensorError) as error:
        raise unusable(key, file.parent, f"{file.name} is no feature extractor ({reason(error)})") from error


def load_features(file: Path, key: str) -> PublicFeatures:
    """The same with its weights, on the CPU."""
    features = stored_features(file, key)
    try:
        features.load_state_dict(load_file(file), assign=True)
    except RuntimeError as error:
        raise unusable(key, file.parent, f"{file.name} is no feature extractor ({reason(error)})") from error
    return features.float()


class Pixels:
    """The images themselves, scaled to [0, 1] and flattened."""

    identity = "pixels"

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)

    def perceive(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] in [-1, 1] to [N, H·W·C]"""
        return (x.permute(0, 2, 3, 1).flatten(1) + 1) / 2

    def embed(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to float32 [N, H·W·C]."""
        return images.reshape(len(images), math.prod(images.shape[1:])).astype(np.float32) / 255
