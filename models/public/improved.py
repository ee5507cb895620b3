"""Official checkpoints of improved-diffusion (Nichol & Dhariwal 2021), which Private Evolution's image models are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from safetensors import SafetensorError

from data.dataset import Dataset
from disk import write_json
from errors import InputError, reason, require, unusable
from models.diffusion.improved_diffusion import to_unet
from models.diffusion.stored import has_unet, on_meta
from models.features.spaces import EmbeddingName
from models.hosted import IMAGENET64_COND, IMAGENET64_UNCOND
from models.public.unet import NoiseSchedule, UNet
from privacy.inherited import PublicInput
from tracking import ranks

HEADS = 4  # in every official model


@dataclass(kw_only=True)
class ImprovedDiffusion(UNet):
    """`pretrained`: an official .pt file. It is converted once, to `<file>-diffusers` beside it, and read from there then."""

    conditional: bool = MISSING  # the public model's: whether it has labels
    timestep_scale: float = 1.0  # 1000 / 4000 for the models that were trained with rescaled timesteps
    image_channels: int = 3
    scale_shift: bool = True
    schedule: NoiseSchedule = NoiseSchedule.cosine
    schedule_steps: int = 4000

    def check(self, dataset: Dataset) -> None:
        require(self.patch == 1, "model.patch", self.patch, "1, as official checkpoints know no patches")
        super().check(dataset)
        require(0 < self.timestep_scale <= 1, "model.timestep_scale", self.timestep_scale, "above 0 and at most 1")
        require(not self.null_label, "model.null_label", self.null_label, "false, as official checkpoints have no such label")
        one = self.conditional or self.labels == 1
        require(one, "model.labels", self.labels, "1, as model.conditional=false")

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        there = self._file.is_file() or has_unet(self.weights_folder())
        gets = (IMAGENET64_COND if self.conditional else IMAGENET64_UNCOND).command
        require(there, "model.pretrained", self.pretrained, f"an official .pt file of improved-diffusion (`{gets}` gets one)")
        self.spaces.prepare(embeddings)

    def public_inputs(self, embeddings: Set[EmbeddingName] = frozenset()) -> list[PublicInput]:
        """The official file; where only what was converted from it is here, that."""
        found = super().public_inputs(embeddings)
        return [PublicInput("model.pretrained", self._file, [self._file]), *found[1:]] if self._file.is_file() else found

    @property
    def _file(self) -> Path:
        return Path(self.pretrained or "null")

    def weights_folder(self) -> Path:
        """Where the file is converted to."""
        return self._file.with_name(f"{self._file.stem}-diffusers")

    def sampling(self, device: torch.device, seed: int) -> dict[str, Any]:
        return {**super().sampling(device, seed), "timestep_scale": self.timestep_scale, "num_heads": HEADS}

    def load_unet(self, seed: int) -> Any:
        problem = None
        if ranks.share() == 0 and self._file.exists() and self._told() != _source(self._file):
            try:
                self._convert(self._file, self.weights_folder())
            except InputError as error:
                problem = error
        if problem := ranks.broadcast(problem):  # the other processes wait here
            raise problem
        return super().load_unet(seed)

    def architecture(self) -> dict[str, Any]:
        """With a learned variance: twice the channels come out."""
        return {
            **super().architecture(),
            "out_channels": 2 * self.image_channels,
            "num_class_embeds": self.labels if self.conditional else None,
            "attention_head_dim": self.channels[-1] // HEADS,
            "attn_norm_num_groups": 32,
            "norm_eps": 1e-5,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        }

    def _told(self) -> dict[str, Any] | None:
        """Which file was converted last."""
        stored = self.weights_folder() / "source.json"
        return json.loads(stored.read_text()) if stored.exists() else None

    def _convert(self, file: Path, folder: Path) -> None:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            unet = to_unet(state, self.image_size, HEADS)
        except Exception as error:  # a foreign file may make anything of its reader
            raise unusable("model.pretrained", file, f"it is no checkpoint of improved-diffusion ({reason(error)})") from error
        shapes = {name: tuple(p.shape) for name, p in on_meta(self.architecture()).state_dict().items()}
        if {name: tuple(p.shape) for name, p in unet.state_dict().items()} != shapes:
            raise unusable("model.pretrained", file, f"its weights are of another shape than model={self.name}")
        partial = folder.with_name(f"{folder.name}-{os.getpid()}.partial")
        try:
            unet.save_pretrained(partial / "unet")
            write_json(partial / "source.json", _source(file))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            advice = f"have it in a folder that can be written, or {folder.name}/, converted elsewhere, without it"
            problem = f"it cannot be converted to {folder} ({reason(error)}); {advice}"
            raise unusable("model.pretrained", file, problem) from error


def _source(file: Path) -> dict[str, Any]:
    state = file.stat()
    return {"name": file.name, "bytes": state.st_size, "modified": state.st_mtime_ns}
