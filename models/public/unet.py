"""A diffusion U-Net by its shape: `UNet2DModel` of diffusers, with weights from a folder, the package, or from scratch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING

from data.dataset import Dataset
from errors import naming, reject_unless, require
from models.diffusion.patches import patched_size
from models.diffusion.schedules import SCHEDULES
from models.diffusion.stored import CONFIG, SCHEDULER, has_unet, part, read_alpha_bar, read_config
from models.public.network import NetworkModel
from models.seeds import derive

LABELS = "class_embedding.weight"


class NoiseSchedule(Enum):
    linear = "linear"
    cosine = "cosine"


@dataclass(kw_only=True)
class UNet(NetworkModel):
    """`pretrained`: a name under models/weights, a folder with `unet/` as diffusers writes it, or null for random weights."""

    image_size: int = MISSING  # side of an image, in pixels
    image_channels: int = MISSING  # 1 (grey) or 3 (RGB)
    patch: int = 1  # side of the patches that the U-Net takes for pixels; 1: pixels as they are
    channels: list[int] = MISSING  # of each level
    blocks: int = MISSING  # residual blocks of each level
    attention_levels: list[int] = field(default_factory=list)  # 0 is the full resolution; the middle always attends
    head_channels: int = 64  # of an attention head
    norm_groups: int = 32  # of group norm
    labels: int = MISSING
    new_labels: bool = False  # with pretrained: another set of labels than theirs, whose embedding starts random
    scale_shift: bool = False  # adaptive group norm
    schedule: NoiseSchedule = NoiseSchedule.linear  # of the noise
    schedule_steps: int = 1000  # T: timesteps of the schedule

    @property
    def num_steps(self) -> int:
        return self.schedule_steps

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, self.image_channels)

    @property
    def untrained_labels(self) -> bool:
        return super().untrained_labels or self.new_labels

    def check(self, dataset: Dataset) -> None:
        self._check_architecture()
        self._check_schedule()
        super().check(dataset)

    def architecture(self) -> dict[str, Any]:
        """The arguments of `UNet2DModel`."""
        attends = [level in self.attention_levels for level in range(len(self.channels))]
        return {
            "sample_size": patched_size(self.image_size, self.patch, len(self.channels)),
            "in_channels": self.image_channels * self.patch**2,
            "out_channels": self.image_channels * self.patch**2,
            "layers_per_block": self.blocks,
            "block_out_channels": tuple(self.channels),
            "down_block_types": tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
            "up_block_types": tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
            "norm_num_groups": self.norm_groups,
            "attention_head_dim": self.head_channels,
            "resnet_time_scale_shift": "scale_shift" if self.scale_shift else "default",
            "num_class_embeds": self.labels + int(self.null_label),
        }

    def sampling(self, device: torch.device, seed: int) -> dict[str, Any]:
        return {"patch": self.patch, "image_size": self.image_size}

    def load_unet(self, seed: int) -> Any:
        if self.pretrained is not None and not self.new_labels:
            return super().load_unet(seed)
        from diffusers import UNet2DModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "model/initial weights"))
            unet: Any = UNet2DModel(**self.architecture())
        if self.pretrained is not None:
            trained = {name: w for name, w in super().load_unet(seed).state_dict().items() if name != LABELS}
            unet.load_state_dict({**trained, LABELS: unet.state_dict()[LABELS]})
        return unet

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
        allowed = "false without model.pretrained, as all is new"
        require(self.pretrained is not None or not self.new_labels, "model.new_labels", self.new_labels, allowed)
        require(
            1 <= self.patch <= self.image_size,
            "model.patch",
            self.patch,
            f"1 (off) or more, up to model.image_size={self.image_size}",
        )
        halves = 2 ** (levels - 1)
        whole = self.architecture()["sample_size"] % halves == 0
        other = "two levels or more of model.autoencoder_channels" if self.latents else "model.patch=2"
        allowed = f"a multiple of {halves}, which all of model.channels but the last halve, or any with {other}"
        require(whole, "model.image_size", self.image_size, allowed)
        for key in ("blocks", "labels", "schedule_steps"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "1 or more")
        if self.pretrained is not None and has_unet(self.weights_folder()):
            with naming("model.pretrained", self.pretrained):
                stored = read_config(self.weights_folder(), "unet", CONFIG)
            for key, value in self.architecture().items():
                same = (key == "num_class_embeds" and self.new_labels) or json.loads(json.dumps(value)) == stored.get(key)
                reject_unless(
                    same,
                    "model.pretrained",
                    self.pretrained,
                    f"its weights are of another shape: {key} is {stored.get(key)}, not {value}",
                )

    def _check_schedule(self) -> None:
        alpha_bar = self.alpha_bar()
        inside = alpha_bar[-1] > 0 and bool((np.diff(alpha_bar) < 0).all())
        require(inside, "model.schedule_steps", self.schedule_steps, f"enough for the {self.schedule.value} schedule")
        if self.pretrained is None or not (part(self.weights_folder(), "scheduler") / SCHEDULER).exists():
            return
        with naming("model.pretrained", self.pretrained):
            trained = read_alpha_bar(self.weights_folder())
        same = len(alpha_bar) == len(trained) and np.allclose(alpha_bar, trained, atol=1e-5)
        allowed = f"the schedule that model.pretrained={self.pretrained} was trained with"
        require(bool(same), "model.schedule", f"{self.schedule.value} with {self.schedule_steps} steps", allowed)

    def alpha_bar(self) -> np.ndarray:
        return SCHEDULES[self.schedule.value](self.schedule_steps)
