"""What every public model offers: facts without weights for a plan, and the model itself, public knowledge only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from data.dataset import Dataset
from errors import unusable
from models.api import Denoiser, Embedding, ImageAPI
from models.costs import NetworkCosts, TrainingCosts, count, count_training
from models.features.spaces import EmbeddingName, Spaces
from privacy.inherited import PublicInput


@dataclass
class PublicModel:
    """An API and embeddings that have seen public data alone."""

    name: str
    api: ImageAPI
    embeddings: Mapping[EmbeddingName, Embedding]
    weights: str | None = None  # the name of the folder that they are from
    make_denoiser: Callable[[], Denoiser] | None = None  # where the API is none

    @cached_property
    def denoiser(self) -> Denoiser:
        """For methods that train it."""
        if isinstance(self.api, Denoiser):
            return self.api
        if self.make_denoiser is None:
            raise unusable("model", self.name, "it has no denoiser to train")
        return self.make_denoiser()


@dataclass(kw_only=True)
class Model:
    """Settings of a public model."""

    name: str = "???"
    labels: int = 1  # public labels that it can be asked for
    null_label: bool = False  # one more label, for classifier-free guidance
    pretrained: str | None = None  # public weights; null: random ones, for methods that train
    inception: str | None = None  # for the embedding of that name: pytorch-fid's weights; null: where torch.hub keeps them
    clip: str | None = None  # for the embedding of that name: a folder that transformers reads; null: where scripts.fetch puts it
    base_is_other_data: bool = False  # what released models that it starts from spent was spent on other people's images

    takes_random_weights = True  # whether training may start without `pretrained`
    latents = False  # whether its denoiser works on what an autoencoder makes of images
    local = True  # whether images that it is given stay on this machine

    @property
    def num_steps(self) -> int:
        """Timesteps of the noise schedule."""
        raise NotImplementedError

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of its images, which need not be those of the dataset."""
        raise NotImplementedError

    def check(self, dataset: Dataset) -> None:
        """Raise InputError for settings that cannot be used."""
        raise NotImplementedError

    def prepare(self, embeddings: Set[EmbeddingName] = frozenset()) -> None:
        """Before a run opens anything: public weights, and those of the embeddings in use, are there; InputError otherwise."""
        self.spaces.prepare(embeddings)

    def public_inputs(self, embeddings: Set[EmbeddingName] = frozenset()) -> list[PublicInput]:
        """The weights that `build` reads, those of the embeddings in use among them."""
        return self.spaces.public_inputs(embeddings)

    def check_respacing(self, key: str, respacing: str | None) -> None:
        """Raise InputError for a respacing that the schedule does not have; null is the model's own."""
        raise NotImplementedError

    def check_degree(self, key: str, degree: float, respacing: str | None) -> None:
        """Raise InputError for a variation degree that the model does not have."""
        raise NotImplementedError

    @property
    def highest_degree(self) -> float | None:
        """Of variation: a whole number of steps, or a strength up to 1; None where nobody knows."""
        return None

    @property
    def spaces(self) -> Spaces:
        """The embeddings that `build` offers."""
        return Spaces(inception=self.inception, clip=self.clip)

    def skeleton(self) -> Denoiser | None:
        """The denoiser on the meta device: shapes without weights. None: there is none, or nobody knows its shapes."""
        return None

    def facts(self) -> dict[str, int | None]:
        """`parameters`, and `flops` of one forward pass of one image; None where nobody knows."""
        if (costs := self.costs()) is None:
            return {"parameters": None, "flops": None}
        return {"parameters": costs.parameters, "flops": costs.flops}

    def costs(self) -> NetworkCosts | None:
        """Of the network of its skeleton; None where it has none."""
        return None if (denoiser := self.skeleton()) is None else count(denoiser)

    def training_costs(self, trained: Mapping[str, Any] | None, prepare: Callable[[Any], None]) -> TrainingCosts | None:
        """Of what `prepare` leaves trainable of the network of its skeleton.

        `trained` describes that in full, as JSON may write it, so that it is counted once; null: it is counted anew.
        """
        return None if (denoiser := self.skeleton()) is None else count_training(denoiser, prepare)

    @property
    def has_denoiser(self) -> bool:
        """Whether it can be trained."""
        return self.skeleton() is not None

    @property
    def untrained_labels(self) -> bool:
        """Whether its labels mean nothing before it is trained on private images."""
        return self.pretrained is None

    def memory(self) -> int | None:
        """Bytes of the network and of one pass of sampling. None: nobody knows, and a plan says so."""
        return None

    def assumptions(self) -> list[str]:
        """What of its settings the certificate repeats as public information."""
        return []

    def calls(self, degree: float | None = None, respacing: str | None = None, guidance: float | None = None) -> int | None:
        """Network calls for one image: from noise, or a variation at `degree`; null is the model's own setting.

        None: nobody knows, and a plan says so.
        """
        return None

    def build(self, dataset: Dataset, device: torch.device, seed: int) -> PublicModel:
        raise NotImplementedError
