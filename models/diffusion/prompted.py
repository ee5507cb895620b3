"""A text-conditional U-Net asked by label: each label stands for a prompt, which is encoded once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.diffusion.stored import load_unet

FILE = "prompts.safetensors"


class PromptedUNet(nn.Module):
    """What `UNet2DModel` is for labels, of a `UNet2DConditionModel` and text embeddings, float [labels + 1, tokens, d].

    The last one is the empty prompt: the null label of classifier-free guidance. The embeddings are public, and not trained.
    """

    prompts: torch.Tensor

    def __init__(self, unet: Any, prompts: torch.Tensor):
        super().__init__()
        self.unet = unet
        self.register_buffer("prompts", prompts, persistent=False)
        shape = {"sample_size": unet.config.sample_size, "in_channels": unet.config.in_channels}
        self.config = SimpleNamespace(**shape, num_class_embeds=len(prompts))

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> Any:
        return self.unet(x, t, encoder_hidden_states=self.prompts[labels])

    def save_pretrained(self, folder: Path) -> None:
        self.unet.save_pretrained(folder)

    def save_prompts(self, folder: Path) -> None:
        save_file({"prompts": self.prompts.float().cpu().contiguous()}, folder / FILE)

    @classmethod
    def load(cls, prompts: Path, networks: Path) -> PromptedUNet:
        """Embeddings from `save_prompts`, and the U-Net in `networks`; ValueError where that cannot be."""
        return cls(load_unet(networks, "UNet2DConditionModel"), load_file(prompts / FILE)["prompts"])
