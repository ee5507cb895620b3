"""A diffusion U-Net by its shape: `UNet2DModel` of diffusers, with weights from a folder, the package, or from scratch."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from omegaconf import MISSING
from safetensors.torch import load_file

from data.dataset import Dataset
from errors import require
from models.config import EmbeddingName, Embeddings, Model, PublicModel
from models.diffusion import DiffusionModel, on_meta
from models.features import Embedding, PublicFeatures
from models.schedules import SCHEDULES, num_respaced, respaced_timesteps
from models.seeds import derive

EMBEDDED = Path(__file__).parent / "weights"  # what ships with the code, one folder a name


class Schedule(Enum):
    linear = "linear"
    cosine = "cosine"


@dataclass(kw_only=True)
class UNet(Model):
    """`pretrained`: a name under models/weights, a folder with `unet/` as diffusers writes it, or null for random weights."""

    image_size: int = MISSING
    image_channels: int = MISSING
    channels: list[int] = MISSING  # of each level
    blocks: int = MISSING  # residual blocks of each level
    attention_levels: list[int] = field(default_factory=list)  # 0 is the full resolution; the middle always attends
    head_channels: int = 64
    norm_groups: int = 32
    labels: int = MISSING
    scale_shift: bool = False  # adaptive group norm
    schedule: Schedule = Schedule.linear
    schedule_steps: int = 1000
    respacing: str = "50"
    guidance: float = 0.0
    features: str | None = None  # a feature extractor: a name under models/weights, or a folder

    @property
    def num_steps(self) -> int:
        return self.schedule_steps

    @property
    def makes(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, self.image_channels)

    def check(self, dataset: Dataset) -> None:
        self._check_architecture()
        self._check_schedule()
        self.check_respacing("model.respacing", self.respacing)
        require(0 <= self.guidance <= 100, "model.guidance", self.guidance, "0 (off) to 100")
        require(not self.guidance or self.null_label, "model.guidance", self.guidance, "0, as model.null_label=false")

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        super().prepare(embeddings)
        for key, name, file, allowed in (
            (
                "pretrained",
                self.pretrained,
                "unet/config.json",
                "a folder with diffusers' unet/, or null for random ones",
            ),
            ("features", self.features, "features.safetensors", "a folder with features.safetensors, or null"),
        ):
            require(name is None or (embedded_or(name) / file).exists(), f"model.{key}", name, allowed)

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        respacing = respacing or self.respacing
        steps = num_respaced(respacing)
        whole = 1 <= degree <= steps and degree == int(degree)
        require(whole, key, degree, f"a whole number from 1 to {steps} (respacing {respacing})")

    def embeddings(self) -> set[EmbeddingName]:
        return super().embeddings() | ({EmbeddingName.public_features} if self.features else set())

    def embedding(self, name: EmbeddingName, device: torch.device) -> Embedding:
        if name is not EmbeddingName.public_features:
            return super().embedding(name, device)
        assert self.features is not None
        features = PublicFeatures(self.image_channels)
        features.load_state_dict(load_file(embedded_or(self.features) / "features.safetensors"))
        return features.to(device)

    def skeleton(self) -> Any:
        return on_meta(self.architecture())

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int:
        steps = num_respaced(respacing or self.respacing) if degree is None else int(degree)
        return steps * (2 if (self.guidance if guidance is None else guidance) else 1)

    def architecture(self) -> dict[str, Any]:
        """The arguments of `UNet2DModel`."""
        attends = [level in self.attention_levels for level in range(len(self.channels))]
        return {
            "sample_size": self.image_size,
            "in_channels": self.image_channels,
            "out_channels": self.image_channels,
            "layers_per_block": self.blocks,
            "block_out_channels": tuple(self.channels),
            "down_block_types": tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
            "up_block_types": tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
            "norm_num_groups": self.norm_groups,
            "attention_head_dim": self.head_channels,
            "resnet_time_scale_shift": "scale_shift" if self.scale_shift else "default",
            "num_class_embeds": self.labels + int(self.null_label),
        }

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        unet: Any
        if self.pretrained is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(seed, "model/initial weights"))
                unet = UNet2DModel(**self.architecture())
        else:
            unet = UNet2DModel.from_pretrained(
                embedded_or(self.pretrained) / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False
            )
        generator = DiffusionModel(
            unet.to(device),
            self.alpha_bar(),
            self.labels,
            self.respacing,
            self.guidance,
            seed=seed,
            device=device,
        )
        weights = self.pretrained and embedded_or(self.pretrained).name
        return PublicModel(self.name, generator, Embeddings(lambda name: self.embedding(name, device)), weights)

    def _check_architecture(self) -> None:
        levels = len(self.channels)
        require(
            levels > 0 and min(self.channels, default=0) > 0, "model.channels", self.channels, "one number above 0 for each level"
        )
        inside = all(0 <= level < levels for level in self.attention_levels)
        require(inside, "model.attention_levels", self.attention_levels, f"levels from 0 to {levels - 1}")
        divides = self.norm_groups >= 1 and all(width % self.norm_groups == 0 for width in self.channels)
        require(
            divides, "model.norm_groups", self.norm_groups, f"a number that divides every one of model.channels={self.channels}"
        )
        attending = [self.channels[level] for level in {*self.attention_levels, levels - 1}]
        divides = self.head_channels >= 1 and all(width % self.head_channels == 0 for width in attending)
        require(divides, "model.head_channels", self.head_channels, f"a number that divides the attending channels {attending}")
        for key in ("blocks", "labels", "schedule_steps"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "1 or more")
        if self.pretrained is not None and (embedded_or(self.pretrained) / "unet" / "config.json").exists():
            stored = json.loads((embedded_or(self.pretrained) / "unet" / "config.json").read_text())
            for key, value in self.architecture().items():
                same = json.loads(json.dumps(value)) == stored.get(key)
                require(
                    same,
                    "model.pretrained",
                    self.pretrained,
                    f"weights of another shape: {key} is {stored.get(key)}, not {value}",
                )

    def _check_schedule(self) -> None:
        alpha_bar = self.alpha_bar()
        inside = alpha_bar[-1] > 0 and bool((np.diff(alpha_bar) < 0).all())
        require(inside, "model.schedule_steps", self.schedule_steps, f"enough for the {self.schedule.value} schedule")
        if self.pretrained is None or not (embedded_or(self.pretrained) / "scheduler").is_dir():
            return
        trained: Any = DDIMScheduler.from_pretrained(embedded_or(self.pretrained) / "scheduler")
        same = len(alpha_bar) == len(trained.alphas_cumprod) and np.allclose(alpha_bar, trained.alphas_cumprod, atol=1e-5)
        allowed = f"the schedule that model.pretrained={self.pretrained} was trained with"
        require(bool(same), "model.schedule", f"{self.schedule.value} with {self.schedule_steps} steps", allowed)

    def alpha_bar(self) -> np.ndarray:
        return SCHEDULES[self.schedule.value](self.schedule_steps)

    def check_respacing(self, key: str, respacing: str | None) -> None:
        try:
            respaced_timesteps(self.schedule_steps, respacing or self.respacing)
        except ValueError as error:
            require(False, key, respacing, str(error))


def embedded_or(name: str) -> Path:
    """The folder of weights that ships under this name, or the folder of this path."""
    return EMBEDDED / name if (EMBEDDED / name).is_dir() else Path(name)
