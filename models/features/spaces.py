"""Which embeddings can be had, by name: where their weights are, what they cost, and the embeddings themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

import torch

from errors import require
from models.api import Embedding
from models.embedded import embedded_or
from models.features.embeddings import (
    CLIP_BYTES,
    CLIP_COST,
    INCEPTION_BYTES,
    INCEPTION_COST,
    Clip,
    Inception,
    clip_files,
    clip_folder,
    inception_weights,
    require_clip,
    require_inception,
)
from models.features.extractors import PASS_ROWS, Pixels, PublicFeatures, load_features, stored_features
from models.flops import pass_costs
from privacy.inherited import PublicInput

FILE = "features.safetensors"


class EmbeddingName(Enum):
    public_features = "public_features"  # of an extractor that was trained on public images
    pixels = "pixels"
    inception = "inception"  # FID's network
    clip = "clip"


class Embeddings(dict[EmbeddingName, Embedding]):
    """Built where they are first asked for."""

    def __init__(self, make: Callable[[EmbeddingName], Embedding]):
        super().__init__()
        self._make = make

    def __missing__(self, name: EmbeddingName) -> Embedding:
        self[name] = self._make(name)
        return self[name]


@dataclass
class Spaces:
    """Spaces that are equal have the same embeddings."""

    features: str | None = None  # the extractor: a name under models/weights, or a folder with features.safetensors
    inception: str | None = None  # pytorch-fid's weights; None: where torch.hub keeps them
    clip: str | None = None  # a folder that transformers reads; None: where scripts.fetch puts it
    key: str = field(default="model.features", compare=False)  # the setting that says where `features` are

    @property
    def names(self) -> set[EmbeddingName]:
        every = set(EmbeddingName)
        return every if self.features is not None else every - {EmbeddingName.public_features}

    @cached_property
    def _file(self) -> Path | None:
        return None if self.features is None else embedded_or(self.features) / FILE

    def require_channels(self, key: str, name: EmbeddingName, channels: int) -> None:
        """InputError at `key` where an embedding does not take images of so many channels. Needs no weights to be there."""
        if name is not EmbeddingName.public_features or self._file is None or not self._file.exists():
            return
        takes = self._on_meta(channels).channels
        allowed = (
            f"pixels, inception or clip, as {self.key}={self.features} takes {takes} channels and the images have {channels}"
        )
        require(takes == channels, key, name, allowed)

    def prepare(self, names: Set[EmbeddingName]) -> None:
        """InputError where the weights of one of these are not there."""
        if EmbeddingName.inception in names:
            require_inception(self.inception)
        if EmbeddingName.clip in names:
            require_clip(self.clip)
        if EmbeddingName.public_features in names:
            self.prepare_features()

    def prepare_features(self) -> None:
        there = self._file is None or self._file.exists()
        require(there, self.key, self.features, f"a folder with {FILE}, or null")

    def public_inputs(self, names: Set[EmbeddingName]) -> list[PublicInput]:
        """The weights of these."""
        found = []
        if EmbeddingName.inception in names:
            weights = inception_weights(self.inception)
            found.append(PublicInput("model.inception", weights, [weights]))
        if EmbeddingName.clip in names:
            folder = clip_folder(self.clip)
            found.append(PublicInput("model.clip", folder, clip_files(folder)))
        if EmbeddingName.public_features in names and self._file is not None:
            found.append(PublicInput(self.key, self._file.parent, [self._file]))
        return found

    def cost(self, name: EmbeddingName, shape: tuple[int, int, int]) -> tuple[float, int]:
        """FLOPs for one image of `shape`, and the length of its vector."""
        if name is EmbeddingName.public_features:
            network = self._on_meta(shape[2])
            return float(pass_costs(network, (*shape[:2], network.channels), 1).flops), network.dim
        return {EmbeddingName.inception: INCEPTION_COST, EmbeddingName.clip: CLIP_COST}.get(name, (0.0, math.prod(shape)))

    def perceived(self, name: EmbeddingName, shape: tuple[int, int, int]) -> int:
        """Numbers that `Perceives.perceive` gives of one image of `shape`."""
        if name is EmbeddingName.public_features:
            network = self._on_meta(shape[2])
            return network.perceive(torch.empty(1, network.channels, *shape[:2], device="meta")).shape[1]
        return self.cost(name, shape)[1]

    def memory(self, name: EmbeddingName, shape: tuple[int, int, int]) -> int:
        """Bytes of its network and of a pass of images of `shape`."""
        if name is EmbeddingName.public_features:
            network = self._on_meta(shape[2])
            weights = 4 * sum(p.numel() for p in network.parameters())
            return weights + pass_costs(network, (*shape[:2], network.channels), PASS_ROWS).bytes
        return {EmbeddingName.inception: INCEPTION_BYTES, EmbeddingName.clip: CLIP_BYTES}.get(name, 0)

    def on(self, device: torch.device) -> Embeddings:
        """On a device, each read where it is first asked for."""
        return Embeddings(lambda name: self._read(name, device))

    def _read(self, name: EmbeddingName, device: torch.device) -> Embedding:
        if name is EmbeddingName.inception:
            return Inception(inception_weights(self.inception), device)
        if name is EmbeddingName.clip:
            return Clip(clip_folder(self.clip), device)
        if name is EmbeddingName.public_features:
            assert self._file is not None
            return load_features(self._file, self.key).to(device)
        return Pixels(device)

    def _on_meta(self, channels: int) -> PublicFeatures:
        """The extractor as shapes: its file's, or, where that is not there yet, the usual ones with so many channels."""
        if self._file is not None and self._file.exists():
            return stored_features(self._file, self.key)
        with torch.device("meta"):
            return PublicFeatures(channels)
