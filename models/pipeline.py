"""`model=diffusers model.pretrained=FOLDER`: any `UNet2DModel` with a DDPM-like scheduler, as diffusers saves it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DDPMScheduler

from data.dataset import Dataset
from errors import InputError, require
from models.network import Network, embedded_or

_NOT_ARGUMENTS = ("_class_name", "_diffusers_version", "_name_or_path")


@dataclass(kw_only=True)
class Diffusers(Network):
    """Shape and schedule are read from `unet/config.json` and `scheduler/`, so they are there before a plan is."""

    name: str = "diffusers"
    labels: int = 1  # public labels; with null_label one embedding more than labels is in the network

    @property
    def makes(self) -> tuple[int, int, int]:
        config = self.architecture()
        return (config["sample_size"], config["sample_size"], config["in_channels"])

    def check(self, dataset: Dataset) -> None:
        allowed = "a folder with unet/ and scheduler/ as diffusers writes them"
        require(self.pretrained is not None, "model.pretrained", self.pretrained, allowed)
        embeds = self.architecture().get("num_class_embeds")
        if embeds:
            fits, told = self.labels + int(self.null_label) == embeds, f"{embeds}, or {embeds - 1} with model.null_label=true"
        else:
            fits, told = self.labels == 1 and not self.null_label, "1 without model.null_label: the network has no labels"
        require(fits, "model.labels", self.labels, told)
        super().check(dataset)

    def architecture(self) -> dict[str, Any]:
        config = self._read("unet/config.json")
        require(config.get("_class_name") == "UNet2DModel", "model.pretrained", self.pretrained, "a UNet2DModel in unet/")
        return {key: value for key, value in config.items() if key not in _NOT_ARGUMENTS}

    def alpha_bar(self) -> np.ndarray:
        config = self._read("scheduler/scheduler_config.json")
        kind = config.get("prediction_type", "epsilon")
        require(kind == "epsilon", "model.pretrained", self.pretrained, f"a network that predicts noise, not {kind}")
        scheduler: Any = DDPMScheduler.from_pretrained(embedded_or(self.pretrained or "") / "scheduler")
        return scheduler.alphas_cumprod.double().numpy()

    def _read(self, file: str) -> dict[str, Any]:
        path: Path = embedded_or(self.pretrained or "") / file
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"model.pretrained={self.pretrained}: has no readable {file}, as diffusers writes it") from error
