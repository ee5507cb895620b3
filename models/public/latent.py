"""A Stable Diffusion pipeline as its folder describes it: its scheduler, and its networks as shapes without weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from errors import reason
from models.flops import forward_cost

INDEX = "model_index.json"
KINDS = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")


@dataclass
class Latent:
    """What is wrong with the folder is a ValueError, where it is first read."""

    folder: Path

    def check(self) -> None:
        """Of another kind, with a second text encoder for one, or without a part of it."""
        try:
            index = json.loads((self.folder / INDEX).read_bytes())
            kind, second = index["_class_name"], index.get("text_encoder_2")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{INDEX} is not readable ({reason(error)})") from error
        if kind not in KINDS or second:
            told = f"it is a {kind}" + (" with a second text encoder" if second else "")
            raise ValueError(f"{told}; pipelines of Stable Diffusion 1 and 2 can be used ({', '.join(KINDS)})")
        if missing := [part for part in PARTS if not (self.folder / part).is_dir()]:
            raise ValueError(f"it has no {'/, '.join(missing)}/")

    @cached_property
    def scheduler(self) -> Any:
        import diffusers

        return self._read("scheduler", lambda name: getattr(diffusers, name).from_pretrained(self.folder / "scheduler"))

    @cached_property
    def networks(self) -> dict[str, Any]:
        """`unet`, `vae` and `text_encoder`, on the meta device."""
        import diffusers
        import transformers

        def shapes(name: str) -> Any:
            kind = getattr(diffusers, name)
            return kind.from_config(kind.load_config(self.folder / part, local_files_only=True))

        def text(name: str) -> Any:
            kind = getattr(transformers, name)
            return kind(kind.config_class.from_pretrained(self.folder / part, local_files_only=True))

        found = {}
        with torch.device("meta"):
            for part, make in (("unet", shapes), ("vae", shapes), ("text_encoder", text)):
                found[part] = self._read(part, make).requires_grad_(False).eval()
        return found

    def _read(self, part: str, make: Any) -> Any:
        try:
            return make(json.loads((self.folder / INDEX).read_bytes())[part][1])
        except Exception as error:  # a foreign folder may make anything of its reader
            raise ValueError(f"{part}/ is not readable ({reason(error)})") from error

    def calls(self, steps: int, strength: float | None = None) -> int:
        """U-Net passes of one image from noise, or from an image at this strength, as diffusers' pipelines make them."""
        try:
            self.scheduler.set_timesteps(steps)
        except Exception as error:
            raise ValueError(f"the scheduler does not take so many ({reason(error)})") from error
        kept = steps if strength is None else min(int(steps * strength), steps)
        return len(self.scheduler.timesteps[(steps - kept) * self.scheduler.order :])

    @property
    def parameters(self) -> int:
        return sum(p.numel() for network in self.networks.values() for p in network.parameters())

    def unet_cost(self, rows: int, size: int) -> tuple[int, int]:
        """FLOPs and bytes of a pass of `rows` latents of images size × size."""
        unet, text = self.networks["unet"], self.networks["text_encoder"].config
        with torch.device("meta"):
            x, t = torch.empty(rows, unet.config.in_channels, *self._latent_sides(size)), torch.zeros(())
            prompt = torch.empty(rows, text.max_position_embeddings, text.hidden_size)
        return forward_cost(lambda: unet(x, t, prompt))

    def decoder_bytes(self, rows: int, size: int) -> int:
        vae = self.networks["vae"]
        z = torch.empty(rows, vae.config.latent_channels, *self._latent_sides(size), device="meta")
        return forward_cost(lambda: vae.decode(z))[1]

    def _latent_sides(self, size: int) -> tuple[int, int]:
        side = size // 2 ** (len(self.networks["vae"].config.block_out_channels) - 1)
        return side, side
