"""The embedded public model: a 0.7M-parameter U-Net and a feature extractor, both trained on printed digits.

The weights ship with the code; `python -m scripts.pretrain_public` makes them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from data.dataset import Dataset
from errors import require
from models.config import EmbeddingName, Model, PublicModel
from models.diffusion import DiffusionModel, unet_facts
from models.features import Embedding, Pixels, PublicFeatures
from models.schedules import linear_alpha_bar, num_respaced, respaced_timesteps

WEIGHTS = Path(__file__).parent / "weights" / "digits"
NUM_LABELS = 10
DIGITS_UNET = dict(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(32, 64),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=16,
    attention_head_dim=8,
    num_class_embeds=NUM_LABELS + 1,  # the last one is the null label of classifier-free guidance
)


@dataclass(kw_only=True)
class DigitsUNet(Model):
    name: str = "digits_unet"
    respacing: str = "20"
    guidance: float = 0.0

    def check(self, dataset: Dataset) -> None:
        require(dataset.shape == (8, 8, 1), "model", self.name, f"makes 8×8×1 images, dataset={dataset.name} has {dataset.shape}")
        _check_respacing("model.respacing", self.respacing)
        require(0 <= self.guidance <= 100, "model.guidance", self.guidance, "0 (off) to 100")
        require(self.batch_size >= 1, "model.batch_size", self.batch_size, "1 or more")

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        respacing = respacing or self.respacing
        _check_respacing(key, respacing)
        steps = num_respaced(respacing)
        require(
            degree == int(degree) and 1 <= degree <= steps,
            key,
            degree,
            f"a whole number from 1 to {steps} (respacing {respacing})",
        )

    def facts(self) -> dict[str, int]:
        return unet_facts(DIGITS_UNET)

    def calls(self, degree: float | None = None, respacing: str | None = None) -> int:
        steps = num_respaced(respacing or self.respacing) if degree is None else int(degree)
        return steps * (2 if self.guidance else 1)

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        unet = UNet2DModel.from_pretrained(WEIGHTS / "unet", torch_dtype=torch.float32).to(device)
        features = PublicFeatures()
        features.load_state_dict(load_file(WEIGHTS / "features.safetensors"))
        generator = DiffusionModel(
            unet,
            linear_alpha_bar(),
            NUM_LABELS,
            self.respacing,
            self.guidance,
            seed=seed,
            batch_size=self.batch_size,
            device=device,
        )
        embeddings: dict[EmbeddingName, Embedding] = {
            EmbeddingName.public_features: features.to(device),
            EmbeddingName.pixels: Pixels(),
        }
        return PublicModel(self.name, generator, embeddings)


def _check_respacing(key: str, respacing: str) -> None:
    try:
        respaced_timesteps(len(linear_alpha_bar()), respacing)
    except ValueError as error:
        require(False, key, respacing, str(error))
