"""`model=latent_unet`: a U-Net of latents between the halves of a small public autoencoder (Rombach et al. 2022)."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import torch

from data.dataset import Dataset
from errors import naming, reject_unless, require
from models.diffusion.autoencoder import Autoencoder, factor
from models.diffusion.model import PASS_ROWS
from models.diffusion.patches import patched_size
from models.diffusion.stored import CONFIG, VAE, load_vae, read_config
from models.features.spaces import EmbeddingName
from models.flops import forward_cost
from models.public.unet import UNet
from models.seeds import derive


@dataclass(kw_only=True)
class LatentUNet(UNet):
    """`pretrained` holds `vae/` beside `unet/`, as `scripts.pretrain_public` writes both. The autoencoder stays as it is."""

    name: str = "latent_unet"
    latent_channels: int = 4  # c of a latent
    autoencoder_channels: list[int] = field(default_factory=lambda: [16, 32, 32])  # of each level; every level but one halves

    takes_random_weights, latents = False, True

    def architecture(self) -> dict[str, Any]:
        """The arguments of `UNet2DModel`."""
        channels = {"in_channels": self.latent_channels, "out_channels": self.latent_channels}
        return {**super().architecture(), **channels, "sample_size": self._side}

    def autoencoder_architecture(self) -> dict[str, Any]:
        """The arguments of `AutoencoderKL`."""
        levels = len(self.autoencoder_channels)
        return {
            "in_channels": self.image_channels,
            "out_channels": self.image_channels,
            "latent_channels": self.latent_channels,
            "block_out_channels": tuple(self.autoencoder_channels),
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "norm_num_groups": min(self.norm_groups, *self.autoencoder_channels),
        }

    def check(self, dataset: Dataset) -> None:
        require(self.patch == 1, "model.patch", self.patch, "1, as latents are few already")
        require(self.latent_channels >= 1, "model.latent_channels", self.latent_channels, "1 or more")
        widths, groups = self.autoencoder_channels, self.norm_groups
        fits = len(widths) > 0 and all(width > 0 and width % min(groups, *widths) == 0 for width in widths)
        allowed = f"one number above 0 for each level, which model.norm_groups={groups} divides"
        require(fits, "model.autoencoder_channels", widths, allowed)
        super().check(dataset)

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        super().prepare(embeddings)
        if self.pretrained is None:
            return
        with naming("model.pretrained", self.pretrained):
            stored = read_config(self.weights_folder(), VAE, CONFIG)
        for key, value in json.loads(json.dumps(self.autoencoder_architecture())).items():
            problem = f"its {VAE}/ is of another shape: {key} is {stored.get(key)}, not {value}"
            reject_unless(stored.get(key) == value, "model.pretrained", self.pretrained, problem)

    def sampling(self, device: torch.device, seed: int) -> dict[str, Any]:
        return {"autoencoder": Autoencoder(self._vae(device, seed), self.image_size, self._side)}

    def memory(self) -> int:
        vae = self._vae(torch.device("meta"), seed=0)
        z = torch.empty(PASS_ROWS, self.latent_channels, self._side, self._side, device="meta")
        decoding = 4 * sum(p.numel() for p in vae.parameters()) + forward_cost(lambda: vae.decode(z))[1]
        return super().memory() + decoding

    @property
    def _side(self) -> int:
        """Of the latents."""
        scale = factor({"block_out_channels": self.autoencoder_channels})
        return patched_size(self.image_size, scale, len(self.channels))

    def _vae(self, device: torch.device, seed: int) -> Any:
        if device.type != "meta" and self.pretrained is not None:
            with naming("model.pretrained", self.pretrained):
                return load_vae(self.weights_folder()).to(device)
        from diffusers import AutoencoderKL

        with torch.random.fork_rng(devices=[]), torch.device("meta" if device.type == "meta" else "cpu"):
            torch.manual_seed(derive(seed, "model/initial autoencoder"))
            vae: Any = AutoencoderKL(**self.autoencoder_architecture())
        return vae.to(device)
