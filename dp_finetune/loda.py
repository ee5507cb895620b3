"""`method=dp_loda` (Liu et al. 2024): DP-SGD on low-dimensional adapters of a frozen public U-Net, sampled with guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.dataset import Dataset
from dp_finetune.adapters import Adapter, AdapterName, Layers, UpKernel, digests, plain
from dp_finetune.method import DPDiffusion
from method import require_public_weights
from models.public.settings import Model, PublicModel
from privacy.config import Privacy


@dataclass(kw_only=True)
class DPLoDA(DPDiffusion):
    """The loop, batches and budget of `dp_diffusion`; what differs is what is trained, and that it alone is released."""

    protects_users = True
    told = (
        "Small additions to a public diffusion model were trained on the private images by noisy steps (DP-SGD), and drew these."
    )

    name: str = "dp_loda"
    adapter: AdapterName = AdapterName.loda  # what is trained
    rank: int = 4  # r: channels of loda and lora
    # which layers loda and lora stand beside
    layers: list[Layers] = field(default_factory=lambda: [Layers.conv, Layers.attention])
    pattern: str | None = None  # a regular expression that their names match
    up_kernel: UpKernel = UpKernel.one  # of loda's B: 1×1, or as A's

    def check(self, dataset: Dataset, model: Model, privacy: Privacy) -> None:
        require_public_weights(self, model)
        super().check(dataset, model, privacy)
        self._adapter.check("method")
        self.costs(model)

    @property
    def _adapter(self) -> Adapter:
        return Adapter(kind=self.adapter, rank=self.rank, layers=self.layers, pattern=self.pattern, up_kernel=self.up_kernel)

    @property
    def trained(self) -> dict[str, Any]:
        return plain(self._adapter)

    def prepare(self, unet: Any, seed: int) -> None:
        self._adapter.apply(unet, seed)

    def saver(self, model: PublicModel) -> Callable[[Path], None]:
        if self.adapter is AdapterName.full:
            return super().saver(model)
        base = {"name": model.weights or model.name, **digests(model.denoiser)}
        return lambda folder: self._adapter.save(model.denoiser, base, folder)
