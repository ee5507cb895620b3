"""What every public model offers: facts without weights for a plan, and the model itself, public knowledge only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from data.dataset import Dataset
from models.diffusion import DiffusionModel
from models.features import Embedding


class EmbeddingName(Enum):
    public_features = "public_features"
    pixels = "pixels"


@dataclass
class PublicModel:
    """A generator and embeddings that have seen public data alone."""

    name: str
    generator: DiffusionModel
    embeddings: dict[EmbeddingName, Embedding]
    weights: str | None = None  # the name of the folder that they are from


@dataclass(kw_only=True)
class Model:
    """Settings of a public model."""

    name: str = "???"
    labels: int = 1  # public labels that it can be asked for
    null_label: bool = False  # one more label, for classifier-free guidance
    pretrained: str | None = None  # public weights; null: random ones, for methods that train

    @property
    def num_steps(self) -> int:
        """Timesteps of the noise schedule."""
        raise NotImplementedError

    def check(self, dataset: Dataset) -> None:
        """Raise InputError where the model does not fit the dataset."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Before a run opens anything: public weights are there; InputError otherwise."""

    def check_respacing(self, key: str, respacing: str | None) -> None:
        """Raise InputError for a respacing that the schedule does not have; null is the model's own."""
        raise NotImplementedError

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        """Raise InputError for a variation degree that the model does not have."""
        raise NotImplementedError

    def embeddings(self) -> set[EmbeddingName]:
        """The embeddings that `build` will offer."""
        raise NotImplementedError

    def skeleton(self) -> Any:
        """The network on the meta device: shapes without weights."""
        raise NotImplementedError

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int:
        """Network calls for one image: from noise, or a variation at `degree`; null is the model's own setting."""
        raise NotImplementedError

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        raise NotImplementedError
