"""A class-conditional diffusion model as the methods see it: a diffusers U-Net, its schedule and what its labels mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from data.images import to_network, to_uint8
from disk import write_json
from errors import reason, unusable
from models.diffusion.autoencoder import Autoencoder
from models.diffusion.checkpointing import is_checkpointed, training_peak
from models.diffusion.improved_diffusion import set_heads
from models.diffusion.patches import from_patches, to_patches
from models.diffusion.prompted import FILE as PROMPTS
from models.diffusion.prompted import PromptedUNet
from models.diffusion.samplers import SAMPLERS, PredictNoise, sdedit
from models.diffusion.schedules import respaced_timesteps
from models.diffusion.stored import load_unet, load_vae, read_alpha_bar, save_part, save_schedule
from models.passes import in_passes, rows_that_fit
from models.seeds import sample_noise
from tracking import ranks
from tracking.progress import Advance

PROMPTED_ROWS = 4  # of Stable Diffusion's network
PASS_ROWS = 64  # on a CPU as fast as any other number; on a GPU the least

_Generate = Callable[[np.ndarray, PredictNoise, torch.Tensor], torch.Tensor]


@dataclass
class DiffusionModel:
    """Generates images for `num_labels` public labels, one random stream per sample.

    Label `num_labels` is the null label of classifier-free guidance, where the U-Net has one more embedding than labels.
    `respacing` is improved-diffusion's: "N" or "ddimN" of the schedule's steps.
    """

    network: Any  # a diffusers UNet2DModel, or a PromptedUNet
    alpha_bar: np.ndarray  # float64 [T]
    num_labels: int
    respacing: str
    guidance: float = 0.0
    sampler: str = "ddim"  # of SAMPLERS
    seed: int = 0
    timestep_scale: float = 1.0
    patch: int = 1  # see `models.diffusion.patches`
    image_size: int | None = None  # the side of an image; None: that of the network, times `patch`, or of the autoencoder
    num_heads: int | None = None  # of attention at every width, which a saved U-Net does not tell (see `set_heads`)
    classes: list[int] | None = None  # the label of each class of a release that this model is from; None: all labels are
    autoencoder: Autoencoder | None = None  # where the network works on latents, and not on pixels
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bfloat16: bool = False  # the network's products when sampling; x_t and what is made of it stay float32
    compiled: bool = False  # sample through torch.compile
    kept: Path | None = None  # a folder where a run keeps how it samples, so that it goes on so after a kill

    def __post_init__(self) -> None:
        if self.num_heads is not None:
            set_heads(self.network, self.num_heads)
        if self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)

    @property
    def null_label(self) -> int | None:
        """The label of classifier-free guidance, where the U-Net has one."""
        return self.num_labels if (self.network.config.num_class_embeds or 0) > self.num_labels else None

    @classmethod
    def load(cls, folder: Path, seed: int, device: torch.device, unet_folder: Path | None = None) -> DiffusionModel:
        """What `save` wrote; InputError where that is not in `folder`. `unet_folder`: of the U-Net, if not with it."""
        try:
            sampling = json.loads((folder / "sampling.json").read_text())
            networks = unet_folder or folder
            prompted = (folder / PROMPTS).exists()
            unet: Any = PromptedUNet.load(folder, networks) if prompted else load_unet(networks)
            autoencoder = None
            if (side := sampling.pop("latent_side", None)) is not None:
                autoencoder = Autoencoder(load_vae(networks).to(device), sampling["image_size"], side)
            return cls(unet.to(device), read_alpha_bar(folder), seed=seed, device=device, autoencoder=autoencoder, **sampling)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            where = folder if unet_folder is None else f"{folder} on {unet_folder}"
            raise unusable("model", where, f"it is no released model ({reason(error)})") from error

    def save(self, folder: Path) -> None:
        """`unet/`, `vae/` if there is one, and `scheduler/` as diffusers writes them, `sampling.json` with the rest."""
        self.save_sampling(folder)
        self.network.to(memory_format=torch.contiguous_format)  # safetensors knows no other
        save_part(self.network, folder / "unet")
        if self.autoencoder is not None:
            self.autoencoder.save(folder)

    def save_sampling(self, folder: Path) -> None:
        """All but the networks."""
        folder.mkdir(parents=True, exist_ok=True)
        keys = ("num_labels", "respacing", "guidance", "timestep_scale", "patch", "image_size", "num_heads", "classes", "sampler")
        sampling = {key: getattr(self, key) for key in keys}
        if self.autoencoder is not None:
            sampling |= {"latent_side": self.autoencoder.side, "image_size": self.autoencoder.image_size}
        if isinstance(self.network, PromptedUNet):
            self.network.save_prompts(folder)
        write_json(folder / "sampling.json", sampling)
        save_schedule(self.alpha_bar, folder / "scheduler")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of x: what noise is added to, before the network takes it in patches."""
        if self.autoencoder is not None:
            return (self.autoencoder.channels, self.autoencoder.side, self.autoencoder.side)
        side = self.image_size or self.network.config.sample_size * self.patch
        return (self.network.config.in_channels // self.patch**2, side, side)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image, as `decode` makes it."""
        if self.autoencoder is not None:
            return self.autoencoder.image_shape
        channels, height, width = self.shape
        return (height, width, channels)

    def random(self, labels: np.ndarray, *, stream: str, advance: Advance | None = None) -> np.ndarray:
        """Images from noise for int64 labels [N]: uint8 [N, H, W, C]. `stream` names the randomness: same name, same images."""
        timesteps = respaced_timesteps(len(self.alpha_bar), self.respacing)

        def generate(rows: np.ndarray, predict: PredictNoise, noise: torch.Tensor) -> torch.Tensor:
            return SAMPLERS[self.sampler](predict, noise, timesteps, self.alpha_bar, self._bound)

        return self._in_batches(labels, stream, generate, advance)

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
        """Images like the given ones (uint8 [N, H, W, C], same out) at degree 1 … N of the respacing: see `sdedit`."""
        timesteps = respaced_timesteps(len(self.alpha_bar), respacing or self.respacing)

        def generate(rows: np.ndarray, predict: PredictNoise, noise: torch.Tensor) -> torch.Tensor:
            x_0, sampler = self.encode(images[rows]), SAMPLERS[self.sampler]
            return sdedit(predict, x_0, noise, int(degree), timesteps, self.alpha_bar, self._bound, sampler)

        return self._in_batches(labels, stream, generate, advance)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        return to_network(images, self.device) if self.autoencoder is None else self.autoencoder.encode(images)

    def decode(self, x: torch.Tensor) -> np.ndarray:
        return to_uint8(x) if self.autoencoder is None else self.autoencoder.decode(x)

    def predict_noise(self, x: torch.Tensor, t: int | torch.Tensor, labels: torch.Tensor, network: Any = None) -> torch.Tensor:
        """A learned variance, where there is one, is left aside: DDIM does not use it."""
        if isinstance(t, int):
            t = torch.tensor(t * self.timestep_scale, device=x.device)  # a tensor: diffusers would cut a float to an integer
        elif self.timestep_scale != 1:
            t = t * self.timestep_scale
        known = labels if self.network.config.num_class_embeds else None
        asked = self.network if network is None else network
        patches = to_patches(x, self.patch, self.network.config.sample_size)
        eps = asked(patches, t, known).sample[:, : patches.shape[1]].float()
        return from_patches(eps, self.patch, x.shape[-1])

    def guided_noise(self, x: torch.Tensor, t: int, labels: torch.Tensor) -> torch.Tensor:
        """eps = (1 + w) eps(x, y) - w eps(x, null) (Ho & Salimans 2022, eq. 6); w = 0 makes one call, not two."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            eps = self.predict_noise(x, t, labels, self._sampler)
            if self.guidance:
                without = self.predict_noise(x, t, torch.full_like(labels, self.num_labels), self._sampler)
                eps = (1 + self.guidance) * eps - self.guidance * without
        return eps

    def dummy_inputs(self, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        device = next(self.network.parameters()).device
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        return torch.zeros(rows, *self.shape, device=device), zeros, zeros

    def activation_bytes(self) -> int:
        if is_checkpointed(self.network):
            return training_peak(self.network, lambda: self.predict_noise(*self.dummy_inputs(1)).sum())
        kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size() if not isinstance(tensor, nn.Parameter) else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self.predict_noise(*self.dummy_inputs(1))
        return kept

    def flops(self) -> dict[str, int]:
        from torch.utils.flop_counter import FlopCounterMode  # it brings PyTorch's compiler

        with FlopCounterMode(display=False) as counter:
            eps = self.predict_noise(*self.dummy_inputs(1))
            forward = counter.get_total_flops()
            if eps.requires_grad:
                eps.sum().backward()
        return {"forward": forward, "backward": counter.get_total_flops() - forward}

    @property
    def _bound(self) -> float | None:
        """Of x_0: pixels end at 1, latents nowhere."""
        return 1.0 if self.autoencoder is None else None

    @cached_property
    def _sampler(self) -> Any:
        return torch.compile(self.network) if self.compiled else self.network

    @cached_property
    def pass_rows(self) -> int:
        """Images of one pass: on a GPU the most that fit, found once for a run, so that it rounds alike after a kill."""
        least = PASS_ROWS if not isinstance(self.network, PromptedUNet) else PROMPTED_ROWS
        if self.device.type != "cuda":
            return least

        def attempt(rows: int) -> None:
            x = torch.zeros(rows, *self.shape, device=self.device)
            self.guided_noise(x, 0, torch.zeros(rows, dtype=torch.int64, device=self.device))

        def most() -> int:
            return rows_that_fit(attempt, least)

        return ranks.broadcast(most()) if self.kept is None else ranks.decided_once(self.kept / "pass_rows.json", most)

    @torch.inference_mode()
    def _in_batches(self, labels: np.ndarray, stream: str, generate: _Generate, advance: Advance | None) -> np.ndarray:
        self.network.eval()

        def make(rows: np.ndarray) -> np.ndarray:
            y = torch.from_numpy(labels[rows]).to(self.device)
            noise = sample_noise(self.seed, stream, rows, self.shape).to(self.device)
            return self.decode(generate(rows, partial(self.guided_noise, labels=y), noise))

        return in_passes(len(labels), self.pass_rows, self.image_shape, make, advance)
