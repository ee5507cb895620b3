"""Embeddings that a user brings weights for: the Inception network of FID, and CLIP. Public knowledge, as generators are."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from data.images import conform
from errors import reason, reject_unless, unusable
from models.features.extractors import weights_digest
from models.hosted import CLIP, INCEPTION
from models.passes import embed_in_passes

PASS_ROWS = 64  # always as many: rounding depends on it
INCEPTION_COST = 11.4e9, 2048  # FLOPs an image, length of the vector
INCEPTION_BYTES = 1150 * 2**20  # weights, twice while they are read, and a pass
CLIP_COST = 8.8e9, 512  # of ViT-B/32; larger ones cost more
CLIP_BYTES = 650 * 2**20
WITHOUT = "or use method.embedding=pixels, eval.frechet.embedding=pixels, which need no weights"


class Network:
    """`embed` for networks that take float images [N, 3, H, W] in [0, 1] and give vectors."""

    dim: int
    device: torch.device
    network: Any

    @cached_property
    def identity(self) -> str:
        return weights_digest(self.network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def perceive(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] in [-1, 1] to [N, dim]"""
        return self.forward(((x + 1) / 2).expand(-1, 3, -1, -1))

    @torch.inference_mode()
    def embed(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C] to float32 [N, dim]; an image's row does not depend on the others. Grey is repeated."""

        def vectors(batch: np.ndarray) -> torch.Tensor:
            rgb = conform(batch, (*batch.shape[1:3], 3))
            return self.forward(torch.from_numpy(rgb).to(self.device).permute(0, 3, 1, 2).float() / 255)

        return embed_in_passes(images, PASS_ROWS, self.dim, vectors)


class Inception(Network):
    """The pooled features of FID's Inception-v3, 2,048 numbers, as pytorch-fid has them (resized to 299×299 inside)."""

    dim = 2048

    def __init__(self, weights: Path, device: torch.device):
        import pytorch_fid.inception as source

        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            with patch.object(source, "load_state_dict_from_url", lambda *_, **__: state):
                self.network = source.InceptionV3([3]).to(device).eval()
            self.classes = state["fc.weight"].float()  # [1008, 2048]
        except Exception as error:  # a foreign file may make anything of its reader
            raise unusable("model.inception", weights, f"it holds no weights of pytorch-fid ({reason(error)})") from error
        self.device = device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)[0].flatten(1)

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Of its 1,008 classes, without the last layer's bias, as the code of Salimans et al. has them: float32 [N, 1008]."""
        return (torch.from_numpy(vectors) @ self.classes.T).numpy()


class Clip(Network):
    """CLIP's image vectors (Radford et al. 2021) from a folder that transformers reads, as long as they come."""

    def __init__(self, folder: Path, device: torch.device):
        from transformers import CLIPVisionModelWithProjection

        try:
            network: Any = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
            self.network = network.to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise unusable("model.clip", folder, f"it holds no CLIP that transformers reads ({reason(error)})") from error
        self.size, self.dim, self.device = self.network.config.image_size, self.network.config.projection_dim, device
        self.mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], device=device).reshape(3, 1, 1)  # of CLIP's own training
        self.std = torch.tensor([0.26862954, 0.26130258, 0.27577711], device=device).reshape(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return self.network(pixel_values=(x - self.mean) / self.std).image_embeds


def inception_weights(configured: str | None) -> Path:
    """The configured file, or the one that torch.hub keeps."""
    return INCEPTION.place if configured is None else Path(configured)


def clip_folder(configured: str | None) -> Path:
    """The configured folder, or the one that `scripts.fetch` fills."""
    return CLIP.place if configured is None else Path(configured)


def clip_files(folder: Path) -> list[Path]:
    """The settings and weights that transformers reads there."""
    return sorted(file for file in folder.glob("*") if file.name == "config.json" or file.suffix in (".safetensors", ".bin"))


def require_inception(configured: str | None) -> None:
    where = inception_weights(configured)
    problem = f"weights of FID's Inception are not at {where}; `{INCEPTION.command}` gets them to {INCEPTION.place}, {WITHOUT}"
    reject_unless(where.exists(), "model.inception", configured, problem)


def require_clip(configured: str | None) -> None:
    where = clip_folder(configured)
    problem = f"{where} holds no CLIP as transformers has it; `{CLIP.command}` gets one to {CLIP.place}, {WITHOUT}"
    reject_unless((where / "config.json").exists(), "model.clip", configured, problem)
