"""What the rest of the program asks of a public model, and of an embedding.

`ImageAPI` is all that Private Evolution needs of a model, and a user's own object with its members will do, around a remote
service for one: `model=callable model.factory=my_module:MyAPI` runs on it, in requests that are paced, repeated where they
fail, and kept on disk. Such an object is asked with `stream` alone, never with `advance` or `respacing`, and may leave them out.

`Denoiser` is what training needs: a network that predicts noise, on images or on what an autoencoder makes of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from tracking.progress import Advance


class ImageAPI(Protocol):
    """Generates images; the labels are the public model's own, int64 [N] in 0 … num_labels - 1.

    `stream` names the randomness of a call: an API that gives the same images for the same stream makes a killed run resume to
    the same release. `advance` is told how many images are done.
    """

    @property
    def num_labels(self) -> int: ...

    def random(self, labels: np.ndarray, *, stream: str, advance: Advance | None = None) -> np.ndarray:
        """One image for each label: uint8 [N, H, W, C]."""
        ...

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
        """Images like the given ones, uint8 [N, H, W, C], the further from them the higher the degree; same shape out."""
        ...


@runtime_checkable
class KeepsState(Protocol):
    """An image API that goes on after a kill as it began, by what it keeps in a folder of the run; None: it keeps nothing."""

    kept: Path | None


@runtime_checkable
class Denoiser(ImageAPI, Protocol):
    """A diffusion model that can be trained: what trainer, objective, adapters and audit know of it.

    x is what the network works on, float [N, c, h, w]: images scaled to [-1, 1], or latents. Training changes `network` in place,
    and a method that releases the model sets `classes` and `guidance` on it: one that must stay as it was is built anew.
    """

    network: Any  # nn.Module; an audit puts one around it
    guidance: float  # weight of classifier-free guidance when sampling
    classes: list[int] | None  # the label of each class of a release; None: all labels are classes
    timestep_scale: float  # the network is told t times this
    alpha_bar: np.ndarray  # float64 [T]
    device: torch.device

    @property
    def null_label(self) -> int | None:
        """The label of classifier-free guidance, where the network has one."""
        ...

    def encode(self, images: np.ndarray) -> torch.Tensor:
        """uint8 [N, H, W, C] to x, on the denoiser's device."""
        ...

    def decode(self, x: torch.Tensor) -> np.ndarray:
        """x to uint8 [N, H, W, C]."""
        ...

    def predict_noise(self, x: torch.Tensor, t: int | torch.Tensor, labels: torch.Tensor, network: Any = None) -> torch.Tensor:
        """eps at timestep t (one, or int64 [N]), without guidance: float32 in the shape of x, with gradients where they are on.

        `network`: another one in the place of the denoiser's own, such as a compiled one.
        """
        ...

    def dummy_inputs(self, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x, t and labels of zeros, on the network's device."""
        ...

    def activation_bytes(self) -> int:
        """What the backward pass of one row needs kept, which is more than a forward pass alone holds at a time."""
        ...

    def flops(self) -> dict[str, int]:
        """`forward` and `backward` of one row, backward for what is trained. For a network on the meta device."""
        ...

    def save(self, folder: Path) -> None:
        """All that it takes to load it again."""
        ...

    def save_sampling(self, folder: Path) -> None:
        """That without the network."""
        ...


class Embedding(Protocol):
    """Anything that turns uint8 images [N, H, W, C] into float32 vectors [N, D]."""

    @property
    def identity(self) -> str:
        """Differs where the vectors may: what is kept of them is kept under this name."""
        ...

    def embed(self, images: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Perceives(Protocol):
    """An embedding that a generator can be trained through."""

    @property
    def device(self) -> torch.device: ...

    def perceive(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, H, W] in [-1, 1] to [N, D], with gradients: what it makes of an image, with all layers that it shows."""
        ...


@runtime_checkable
class Classifies(Embedding, Protocol):
    """An embedding whose vectors a last layer turns into classes."""

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [N, D], as `embed` gives them, to float32 [N, classes]."""
        ...
