"""`model=stable_diffusion model.pretrained=FOLDER`: RANDOM is text-to-image, VARIATION image-to-image (Lin et al. 2024, App. J).

The prompts are the public model's labels: public information, which the certificate repeats.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import Dataset
from errors import naming, reason, reject_unless, require, unusable
from models.api import Denoiser
from models.costs import TrainingCosts
from models.diffusion.autoencoder import Autoencoder, factor
from models.diffusion.model import DiffusionModel
from models.diffusion.prompted import PromptedUNet
from models.diffusion.stored import load_unet, load_vae, read_alpha_bar
from models.features.spaces import EmbeddingName
from models.hosted import STABLE_DIFFUSION
from models.passes import in_passes
from models.public.latent import INDEX, Latent
from models.public.network import SamplerName
from models.public.settings import Model, PublicModel
from models.seeds import derive
from privacy.inherited import CERTIFICATE, PublicInput
from tracking.progress import Advance

PASS_ROWS = 4
INDEX_NEEDED = f"a folder with {INDEX}, as diffusers writes it (`{STABLE_DIFFUSION.command}` gets one)"


@dataclass(kw_only=True)
class StableDiffusion(Model):
    """Any pipeline of this kind that `from_pretrained` reads from a folder. A degree is a strength, above 0 to 1."""

    name: str = "stable_diffusion"
    pretrained: str | None = None
    prompts: list[str] = field(default_factory=list)  # label c is the prompt of that number
    image_size: int = 512  # side of an image, in pixels
    steps: int = 50  # of sampling
    guidance: float = 7.5  # as diffusers counts it: 1 more than the weight that the other models have
    sampler: SamplerName = SamplerName.ddim  # of a network that is trained; as it is, the folder's scheduler samples
    null_label: bool = True  # the empty prompt

    latents = True

    @property
    def num_steps(self) -> int:
        return int(self._folder.scheduler.config.num_train_timesteps) if self._there else 1000

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def check(self, dataset: Dataset) -> None:
        require(self.pretrained is not None, "model.pretrained", self.pretrained, "a folder with a Stable Diffusion pipeline")
        require(len(self.prompts) == self.labels, "model.prompts", self.prompts, f"one for each of model.labels={self.labels}")
        require(self.steps >= 1, "model.steps", self.steps, "1 or more")
        size = self.image_size
        require(size >= 8 and size % 8 == 0, "model.image_size", size, "a multiple of 8")
        require(0 <= self.guidance <= 100, "model.guidance", self.guidance, "from 0 to 100, where up to 1 is off")
        if self._there:
            with naming("model.pretrained", self.pretrained):
                self._folder.check()
                _ = self._folder.scheduler
            with naming("model.steps", self.steps):
                self._folder.calls(self.steps)

    def check_respacing(self, key: str, respacing: str | None) -> None:
        require(respacing is None, key, respacing, f"null, as model={self.name} has model.steps")

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        allowed = f"from {1 / self.steps:g} (one of model.steps={self.steps}) to 1"
        require(degree <= 1 and int(self.steps * degree) >= 1, key, degree, allowed)

    @property
    def highest_degree(self) -> float:
        return 1.0

    def facts(self) -> dict[str, int | None]:
        if not self._there:
            return {"parameters": None, "flops": None}
        with naming("model.pretrained", self.pretrained):
            return {"parameters": self._folder.parameters, "flops": self._folder.unet_cost(1, self.image_size)[0]}

    def skeleton(self) -> Denoiser:
        require(self._there, "model.pretrained", self.pretrained, INDEX_NEEDED)
        with naming("model.pretrained", self.pretrained):
            networks, device = copy.deepcopy(self._folder.networks), torch.device("meta")  # adapters may be put into it
        text, reads = networks["text_encoder"].config, networks["unet"].config.cross_attention_dim
        problem = (
            f"its U-Net reads text of {reads} numbers, and its text_encoder/ writes {text.hidden_size}, as that of SDXL does"
        )
        reject_unless(reads == text.hidden_size, "model.pretrained", self.pretrained, problem)
        prompts = torch.empty(self.labels + 1, text.max_position_embeddings, text.hidden_size, device=device)
        return self._denoiser(networks["unet"], networks["vae"], prompts, device, seed=0)

    def training_costs(self, trained: Mapping[str, Any] | None, prepare: Callable[[Any], None]) -> TrainingCosts | None:
        if trained is None or not self._there:
            return super().training_costs(trained, prepare)
        key = json.dumps([trained, self.image_size, len(self.prompts)], sort_keys=True)
        if key not in self._counted:
            self._counted[key] = super().training_costs(trained, prepare)
        return self._counted[key]

    @functools.cached_property
    def _counted(self) -> dict[str, TrainingCosts | None]:
        return {}

    def _denoiser(self, unet: Any, vae: Any, prompts: torch.Tensor, device: torch.device, seed: int) -> DiffusionModel:
        whole, allowed = self.image_size % factor(vae.config) == 0, f"a multiple of {factor(vae.config)}, as a latent is as wide"
        require(whole, "model.image_size", self.image_size, allowed)
        side = self.image_size // factor(vae.config)
        with naming("model.pretrained", self.pretrained):
            alpha_bar = read_alpha_bar(self._folder.folder)
        return DiffusionModel(
            PromptedUNet(unet, prompts),
            alpha_bar,
            self.labels,
            respacing=str(self.steps),
            guidance=max(self.guidance - 1, 0),
            sampler=self.sampler.value,
            seed=seed,
            autoencoder=Autoencoder(vae, self.image_size, side),
            device=device,
        )

    def memory(self) -> int | None:
        """Weights in float32, as on a CPU, and the larger of a pass through the U-Net and one through the decoder."""
        if not self._there:
            return None
        rows = PASS_ROWS * (2 if self.guidance > 1 else 1)
        with naming("model.pretrained", self.pretrained):
            passes = self._folder.unet_cost(rows, self.image_size)[1], self._folder.decoder_bytes(PASS_ROWS, self.image_size)
            return 4 * self._folder.parameters + max(passes)

    def assumptions(self) -> list[str]:
        return [f"prompts: {', '.join(repr(prompt) for prompt in self.prompts)}"]

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int:
        if self._there:
            steps = self._folder.calls(self.steps, degree)
        else:  # of a scheduler that makes one call a step
            steps = self.steps if degree is None else min(int(self.steps * degree), self.steps)
        return steps * (2 if (self.guidance > 1 if guidance is None else guidance) else 1)

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        super().prepare(embeddings)
        require(self._there, "model.pretrained", self.pretrained, INDEX_NEEDED)

    def public_inputs(self, embeddings: Set[EmbeddingName] = frozenset()) -> list[PublicInput]:
        folder = self._folder.folder
        files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CERTIFICATE)
        return [PublicInput("model.pretrained", folder, files), *super().public_inputs(embeddings)]

    @functools.cached_property
    def _folder(self) -> Latent:
        return Latent(Path(self.pretrained or ""))

    @property
    def _there(self) -> bool:
        return (self._folder.folder / INDEX).exists()

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

        dtype = torch.float16 if device.type == "cuda" else torch.float32
        try:
            create: Any = StableDiffusionPipeline.from_pretrained(
                self.pretrained, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False, local_files_only=True
            )
        except Exception as error:  # a foreign folder may make anything of its reader
            raise unusable(
                "model.pretrained", self.pretrained, f"it has no pipeline that diffusers reads ({reason(error)})"
            ) from error
        create.to(device)
        change: Any = StableDiffusionImg2ImgPipeline(**create.components, requires_safety_checker=False)
        for pipeline in (create, change):
            pipeline.set_progress_bar_config(disable=True)
        api = TextToImage(create, change, self.prompts, self.image_size, self.steps, self.guidance, seed)

        def denoiser() -> Denoiser:
            with torch.no_grad():
                told = [*self.prompts, ""]
                prompts = create.encode_prompt(told, device, num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
            with naming("model.pretrained", self.pretrained):  # in float32, whatever the pipeline is in
                unet, vae = load_unet(self._folder.folder, "UNet2DConditionModel"), load_vae(self._folder.folder)
            return self._denoiser(unet.to(device), vae.to(device), prompts.float(), device, seed)

        name = Path(self.pretrained or "").name
        return PublicModel(self.name, api, self.spaces.on(device), name, denoiser)


@dataclass
class TextToImage:
    """The two APIs; one random stream per sample, so a result does not depend on the batch it is made in."""

    create: Any
    change: Any
    prompts: list[str]
    size: int
    steps: int
    guidance: float
    seed: int

    @property
    def num_labels(self) -> int:
        return len(self.prompts)

    def random(self, labels: np.ndarray, *, stream: str, advance: Advance | None = None) -> np.ndarray:
        return self._in_passes(
            labels, stream, advance, lambda rows, settings: self.create(height=self.size, width=self.size, **settings)
        )

    def variation(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        degree: float,
        *,
        stream: str,
        respacing: str | None = None,
        advance: Advance | None = None,
    ) -> np.ndarray:
        def make(rows: np.ndarray, settings: dict[str, Any]) -> Any:
            return self.change(image=images[rows].astype(np.float32) / 255, strength=degree, **settings)

        return self._in_passes(labels, stream, advance, make)

    def _in_passes(
        self, labels: np.ndarray, stream: str, advance: Advance | None, make: Callable[[np.ndarray, dict[str, Any]], Any]
    ) -> np.ndarray:
        def pixels(rows: np.ndarray) -> np.ndarray:
            return np.round(np.asarray(make(rows, self._settings(labels[rows], stream, rows)).images) * 255).astype(np.uint8)

        return in_passes(len(labels), PASS_ROWS, (self.size, self.size, 3), pixels, advance)

    def _settings(self, labels: np.ndarray, stream: str, rows: np.ndarray) -> dict[str, Any]:
        return {
            "prompt": [self.prompts[label] for label in labels],
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "generator": [torch.Generator().manual_seed(derive(self.seed, f"{stream}/{row}")) for row in rows],
            "output_type": "np",
        }
