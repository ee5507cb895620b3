"""A toy world for the methods: images of 1×2×1 pixels are points of the plane. Fast, and nothing is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import UNet2DModel

from data.dataset import ClassCounts, Dataset
from data.private import PrivateDataset
from data.samples import SampleSet
from method import Method, Run
from models.diffusion.model import DiffusionModel
from models.diffusion.schedules import linear_alpha_bar
from models.features.spaces import EmbeddingName
from models.public.settings import PublicModel
from models.seeds import numpy_rng
from pipeline.plan import Plan
from pipeline.session import Session
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.noise import NoiseSource


def tiny_unet(**changes: Any) -> Any:
    """A diffusers U-Net with convolutions of stride 1 and 2, attention, group norms and a label embedding; weights are fixed."""
    settings = dict(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=11,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet: Any = UNet2DModel(**{**settings, **changes})
        for p in unet.parameters():
            p.data.add_(0.05 * torch.randn_like(p))  # zero-initialised layers would hide mistakes
    return unet


def denoiser(unet: Any = None, **settings: Any) -> DiffusionModel:
    """Around `tiny_unet` where no other is given: 10 labels and a null label."""
    usual: dict[str, Any] = {"alpha_bar": linear_alpha_bar(), "num_labels": 10, "respacing": "4"}
    return DiffusionModel(tiny_unet() if unet is None else unet, **{**usual, **settings})


class Cloud:
    """An image API as `models.api` asks for: random points, and variations that move a point by about `degree`."""

    num_labels = 3

    def __init__(self, fail_at: int | None = None):
        self.fail_at, self.calls, self.outputs = fail_at, [], []  # type: ignore[var-annotated]

    def random(self, labels: np.ndarray, *, stream: str, advance: Any = None) -> np.ndarray:
        images = numpy_rng(0, stream).integers(0, 256, (len(labels), 1, 2, 1)).astype(np.uint8)
        images[:, 0, 1, 0] = images[:, 0, 1, 0] // 3 * 3 + labels  # the second pixel tells the public label, modulo 3
        return self._done(images, advance, kind="random", stream=stream, labels=labels)

    def variation(self, images, labels, degree, *, stream, respacing=None, advance: Any = None) -> np.ndarray:
        moved = images + np.round(numpy_rng(0, stream).normal(0, degree, images.shape))
        images = np.clip(moved, 0, 255).astype(np.uint8)
        return self._done(images, advance, kind="variation", stream=stream, labels=labels, degree=degree, respacing=respacing)

    def _done(self, images: np.ndarray, advance: Any, **call: Any) -> np.ndarray:
        if len(self.calls) == self.fail_at:
            raise ConnectionError(f"call {self.fail_at} is lost")
        self.calls.append(call)
        self.outputs.append(images)
        if advance:
            advance(len(images))
        return images


class Plane:
    """An embedding: the two pixels."""

    identity = "plane"

    def embed(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32)


@dataclass(kw_only=True)
class Toy(Dataset):
    """A dataset whose private images are given."""

    name: str = "toy"
    class_counts: ClassCounts = ClassCounts.uniform
    samples: SampleSet

    @property
    def num_train(self) -> int:
        return len(self.samples)

    @property
    def classes(self) -> list[str]:
        return [f"class {label}" for label in range(self.samples.num_classes)]

    def private(self) -> SampleSet:
        return self.samples


def toy(centres: Sequence[tuple[int, int]], sizes: Sequence[int], spread: float = 5.0, **settings: Any) -> Toy:
    """Class c: `sizes[c]` points around `centres[c]`."""
    labels = np.repeat(np.arange(len(centres)), sizes)
    points = np.random.default_rng(0).normal(np.asarray(centres, float)[labels], spread)
    images = np.clip(np.round(points), 0, 255).astype(np.uint8).reshape(-1, 1, 2, 1)
    return Toy(samples=SampleSet(images, labels, len(centres)), **settings)


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        self.lines.append({**metrics, "step": step, "internal": internal})

    def image(self, name: str, path: Path) -> None:
        pass

    def summary(self, facts: dict[str, Any]) -> None:
        pass

    def finish(self, failed: bool = False) -> None:
        pass


@dataclass
class Start:
    """One start of a run in a folder; a second start in the same folder resumes the first."""

    private: PrivateDataset
    model: PublicModel
    run: Run
    ledger: Ledger
    api: Cloud
    tracker: Recorder


def start(
    method: Method, dataset: Dataset, folder: Path, sigma: float = 1.0, privacy: Privacy | None = None, api: Cloud | None = None
) -> Start:
    privacy = privacy or Privacy(noise_multiplier=sigma)
    plan = Plan(method.spends(sigma, dataset, privacy), sigma, math.nan, privacy.delta_for(dataset.num_private))
    api, tracker = api or Cloud(), Recorder()
    model = PublicModel("cloud", cast(Any, api), {EmbeddingName.public_features: Plane()})
    opened = Session.open(dataset, privacy, plan, NoiseSource(bytes(32)), folder, tracker=tracker, fewer=False)
    return Start(opened.private, model, opened.run, opened.ledger, api, tracker)
