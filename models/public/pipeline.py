"""`model=diffusers model.pretrained=FOLDER`: any `UNet2DModel` with a DDPM-like scheduler, as diffusers saves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.dataset import Dataset
from errors import format_value, naming, reject_unless, require
from models.diffusion.stored import CONFIG, check_weights, on_meta, read_alpha_bar, read_config
from models.public.network import NetworkModel


@dataclass(kw_only=True)
class Diffusers(NetworkModel):
    """Shape and schedule are read from `unet/` and `scheduler/`, or from the folder itself: a plan needs them."""

    name: str = "diffusers"
    patch: int = 1  # side of the patches that the U-Net was trained to take for pixels; 1: pixels as they are
    image_size: int | None = None  # null: all that the U-Net takes, its side times patch; less: it is told zeros around an image
    labels: int = 1  # public labels; with null_label one embedding more than labels is in the network

    @property
    def image_shape(self) -> tuple[int, int, int]:
        config = self.architecture()
        side = self.image_size or config["sample_size"] * self.patch
        return (side, side, config["in_channels"] // self.patch**2)

    def check(self, dataset: Dataset) -> None:
        require(self.pretrained is not None, "model.pretrained", self.pretrained, "a folder with a UNet2DModel of diffusers")
        require(self.patch >= 1, "model.patch", self.patch, "1 (off) or more")
        most = self.architecture()["sample_size"] * self.patch
        if self.patch == 1:
            fits, allowed = self.image_size in (None, most), f"null or {most}, the network's side, as model.patch=1"
        else:
            fits, allowed = (
                self.image_size is None or 1 <= self.image_size <= most,
                f"null, or from 1 to {most}, the network's side times model.patch",
            )
        require(fits, "model.image_size", self.image_size, allowed)
        embeds = self.architecture().get("num_class_embeds")
        if embeds:
            one = f"{embeds - 1} with model.null_label=true, or {embeds} with model.null_label=false"
            fits, allowed = self.labels + int(self.null_label) == embeds, one
        else:
            fits, allowed = (
                self.labels == 1 and not self.null_label,
                "1 with model.null_label=false, as the network has no labels",
            )
        require(fits, "model.labels", self.labels, allowed)
        with naming("model.pretrained", self.pretrained):
            check_weights(self.weights_folder(), on_meta(self.architecture()))
        super().check(dataset)

    def architecture(self) -> dict[str, Any]:
        with naming("model.pretrained", self.pretrained):
            config = read_config(self.weights_folder(), "unet", CONFIG)
        config = {"in_channels": 3, "out_channels": 3, **config}  # its own defaults
        side, channels = config.get("sample_size"), config["in_channels"]
        if isinstance(side, list) and len(side) == 2 and side[0] == side[1]:
            side = side[0]
        for key, fits, allowed in (
            ("_class_name", config.get("_class_name") == "UNet2DModel", "UNet2DModel"),
            ("sample_size", isinstance(side, int) and side > 0, "the side of square images"),
            ("in_channels", channels in (self.patch**2, 3 * self.patch**2), "1 (grey) or 3 (RGB), times model.patch squared"),
            ("out_channels", config["out_channels"] in (channels, 2 * channels), f"{channels}, or twice that"),
            ("class_embed_type", config.get("class_embed_type") is None, "null"),
        ):
            patched = key == "in_channels" and self.patch != 1
            setting, value = ("model.patch", self.patch) if patched else ("model.pretrained", self.pretrained)
            problem = f"{key} in the U-Net's {CONFIG} is {format_value(config.get(key))}, not {allowed}"
            reject_unless(fits, setting, value, problem)
        return {key: value for key, value in config.items() if not key.startswith("_")} | {"sample_size": side}

    def sampling(self, device: torch.device, seed: int) -> dict[str, Any]:
        return {"patch": self.patch, "image_size": self.image_size}

    def load_unet(self, seed: int) -> Any:
        unet = super().load_unet(seed)
        unet.register_to_config(sample_size=self.architecture()["sample_size"])  # where a list of two was saved
        return unet

    def alpha_bar(self) -> np.ndarray:
        with naming("model.pretrained", self.pretrained):
            return read_alpha_bar(self.weights_folder())
