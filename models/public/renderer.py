"""`model=printed_digits`: a public model that is a program, not a network: printed digits, and how handwriting may bend them.

RANDOM renders a digit in one of matplotlib's faces; VARIATION warps an image it is given. Private Evolution needs no more of a
public model than these two (Lin et al. 2025, arXiv 2502.05505, use simulators so).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtr

from data.dataset import Dataset
from data.datasets.printed import num_fonts, render, warp
from errors import require
from models.features.spaces import EmbeddingName
from models.passes import in_passes
from models.public.settings import Model, PublicModel
from models.seeds import sample_noise
from tracking.progress import Advance

PASS_ROWS = 512
DEGREES = 20


@dataclass(kw_only=True)
class PrintedDigits(Model):
    """Ten labels, 0 to 9. Degrees are 0 (hardly anything changes) to 20."""

    name: str = "printed_digits"
    pretrained: str | None = "a program"
    labels: int = 10
    image_size: int = 28  # side of an image, in pixels

    @property
    def num_steps(self) -> int:
        return 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 1)

    def check(self, dataset: Dataset) -> None:
        require(self.image_size in (8, 28), "model.image_size", self.image_size, "8 or 28")
        require(self.labels == 10, "model.labels", self.labels, "10")

    def check_respacing(self, key: str, respacing: str | None) -> None:
        require(respacing is None, key, respacing, f"null, as model={self.name} has no timesteps")

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        require(0 <= degree <= DEGREES, key, degree, f"from 0 to {DEGREES}")

    @property
    def highest_degree(self) -> float:
        return DEGREES

    def facts(self) -> dict[str, int | None]:
        return {"parameters": 0, "flops": 0}

    def memory(self) -> int:
        return 0  # no network, and a pass of small images

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int:
        return 1

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        self.spaces.prepare(embeddings)

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        api = Renderer(self.image_size, seed)
        return PublicModel(self.name, api, self.spaces.on(device))


@dataclass
class Renderer:
    """The two APIs; one random stream per sample."""

    size: int
    seed: int
    num_labels: int = 10

    def random(self, labels: np.ndarray, *, stream: str, advance: Advance | None = None) -> np.ndarray:
        def make(rows: np.ndarray) -> np.ndarray:
            z = self._normals(stream, rows)
            fonts = (ndtr(z[:, 3]) * num_fonts()).astype(np.int64)
            return render(labels[rows], fonts, 10 * z[:, 0], 0.25 * z[:, 1], np.exp(0.25 * z[:, 2]), 0.12 * _bend(z), self.size)

        return in_passes(len(labels), PASS_ROWS, (self.size, self.size, 1), make, advance)

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
        """A warp, and a stroke a little thicker or thinner; what interpolation blurs is sharpened again."""
        strength = degree / DEGREES

        def make(rows: np.ndarray) -> np.ndarray:
            z = strength * self._normals(stream, rows)
            x = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() / 255  # [n, 1, S, S]
            x = warp(x, 0.35 * z[:, 0], 0.35 * z[:, 1], np.exp(0.25 * z[:, 2]), 0.25 * _bend(z))
            blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=1)
            ink = 0.7 * x + 0.3 * blurred + torch.from_numpy(0.5 * z[:, 3]).float().reshape(-1, 1, 1, 1) * blurred
            sharp = torch.clamp(2.5 * (ink - 0.45) + 0.5, 0, 1)
            return (255 * sharp).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

        return in_passes(len(labels), PASS_ROWS, (self.size, self.size, 1), make, advance)

    def _normals(self, stream: str, rows: np.ndarray) -> np.ndarray:
        """float64 [n, 36]: rotation, shear, width, face or thickness, and the bend."""
        return sample_noise(self.seed, stream, rows, (36,)).double().numpy()


def _bend(z: np.ndarray) -> np.ndarray:
    return z[:, 4:].reshape(-1, 2, 4, 4)
