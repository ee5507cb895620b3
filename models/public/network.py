"""What all diffusion U-Nets have in common as public models: a schedule, a respacing, guidance, features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import Dataset
from errors import naming, require, unusable
from models.api import Denoiser
from models.costs import NetworkCosts, TrainingCosts, count, count_training, is_own, look_up
from models.diffusion.model import PASS_ROWS, DiffusionModel
from models.diffusion.schedules import num_respaced, respaced_timesteps
from models.diffusion.stored import has_unet, load_unet, on_meta, stored_files
from models.embedded import embedded_or
from models.features.spaces import EmbeddingName, Spaces
from models.public.settings import Model, PublicModel
from privacy.inherited import PublicInput


class Precision(Enum):
    auto = "auto"  # bfloat16 on a CUDA GPU, float32 elsewhere
    float32 = "float32"
    bfloat16 = "bfloat16"  # the network's products; weights, per-example gradients, norms and sums stay float32

    def is_bfloat16(self, device: torch.device) -> bool:
        return self is Precision.bfloat16 or (self is Precision.auto and device.type == "cuda")


class SamplerName(Enum):
    ddim = "ddim"  # Song et al. 2021
    dpm_solver = "dpm_solver"  # DPM-Solver++(2M), Lu et al. 2022: for fewer timesteps


@dataclass(kw_only=True)
class NetworkModel(Model):
    """A `UNet2DModel` by its `architecture()`, its schedule `alpha_bar()` and its weights."""

    respacing: str = "50"  # timesteps of sampling, as improved-diffusion writes them: N, or ddimN
    guidance: float = 0.0  # weight of classifier-free guidance; 0: off
    sampler: SamplerName = SamplerName.ddim  # how samples are drawn
    precision: Precision = Precision.auto  # when sampling
    compile: bool = False  # sample through torch.compile: worth its minutes for many images on a GPU
    features: str | None = None  # a feature extractor: a name under models/weights, or a folder

    def architecture(self) -> dict[str, Any]:
        """The arguments of `UNet2DModel`."""
        raise NotImplementedError

    def alpha_bar(self) -> np.ndarray:
        """float64 [T]"""
        raise NotImplementedError

    def weights_folder(self) -> Path:
        """Of a pipeline, as diffusers writes it."""
        return embedded_or(self.pretrained or "")

    def load_unet(self, seed: int) -> Any:
        with naming("model.pretrained", self.pretrained):
            return load_unet(self.weights_folder())

    def sampling(self, device: torch.device, seed: int) -> dict[str, Any]:
        """More arguments of `DiffusionModel`; on the meta device without weights."""
        return {}

    @property
    def num_steps(self) -> int:
        return len(self.alpha_bar())

    def check(self, dataset: Dataset) -> None:
        self.check_respacing("model.respacing", self.respacing)
        require(0 <= self.guidance <= 100, "model.guidance", self.guidance, "from 0 (off) to 100")
        require(not self.guidance or self.null_label, "model.guidance", self.guidance, "0, as model.null_label=false")

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        super().prepare(embeddings)
        self.spaces.prepare_features()
        there = self.pretrained is None or has_unet(self.weights_folder())
        require(there, "model.pretrained", self.pretrained, "a folder with diffusers' unet/, or null for random weights")

    def public_inputs(self, embeddings: Set[EmbeddingName] = frozenset()) -> list[PublicInput]:
        found = super().public_inputs(embeddings)
        if self.pretrained is not None:
            found.insert(0, PublicInput("model.pretrained", self.weights_folder(), stored_files(self.weights_folder())))
        return found

    def check_respacing(self, key: str, respacing: str | None) -> None:
        steps = self.num_steps
        try:
            respaced_timesteps(steps, respacing or self.respacing)
        except ValueError as error:
            raise unusable(key, respacing, str(error)) from error

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        respacing = respacing or self.respacing
        steps = num_respaced(respacing)
        whole = 1 <= degree <= steps and degree == int(degree)
        require(whole, key, degree, f"a whole number from 1 to {steps} (respacing {respacing})")

    @property
    def highest_degree(self) -> float:
        return num_respaced(self.respacing)

    @property
    def spaces(self) -> Spaces:
        return replace(super().spaces, features=self.features)

    def skeleton(self) -> Denoiser:
        return self._denoiser(on_meta(self.architecture()), torch.device("meta"), seed=0)

    def costs(self) -> NetworkCosts:
        return look_up(self.described(), lambda: count(self.skeleton())) if is_own(self) else count(self.skeleton())

    def training_costs(self, trained: Mapping[str, Any] | None, prepare: Callable[[Any], None]) -> TrainingCosts:
        if trained is None or not is_own(self):
            return count_training(self.skeleton(), prepare)
        return look_up({**self.described(), "trained": trained}, lambda: count_training(self.skeleton(), prepare))

    @property
    def has_denoiser(self) -> bool:
        return True

    def described(self) -> dict[str, Any]:
        """All that the costs of the network follow from, in a class of this program."""
        return {"architecture": self.architecture(), "image": self.image_shape}

    def memory(self) -> int:
        costs = self.costs()
        return 4 * costs.parameters + PASS_ROWS * costs.activation_bytes

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int:
        steps = num_respaced(respacing or self.respacing) if degree is None else int(degree)
        return steps * (2 if (self.guidance if guidance is None else guidance) else 1)

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        api = self._denoiser(self.load_unet(seed).to(device), device, seed)
        name = None if self.pretrained is None else embedded_or(self.pretrained).name
        return PublicModel(self.name, api, self.spaces.on(device), name)

    def _denoiser(self, unet: Any, device: torch.device, seed: int) -> DiffusionModel:
        return DiffusionModel(
            unet,
            self.alpha_bar(),
            self.labels,
            self.respacing,
            self.guidance,
            seed=seed,
            device=device,
            sampler=self.sampler.value,
            bfloat16=self.precision.is_bfloat16(device),
            compiled=self.compile,
            **self.sampling(device, seed),
        )
