"""What every public model keeps: a model is put through all of it by a line in MODELS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.schema import COMPONENTS
from models.public.settings import EmbeddingName, Model
from tests.command import composed_model
from tests.conformance.worlds import Grey, api_of
from tests.models.test_improved_diffusion import made_weights
from tests.models.test_latents import made_latent_unet
from tests.models.test_pipeline import saved
from tests.models.test_text_to_image import made_pipeline
from tests.rejects import rejects

CPU = torch.device("cpu")
FACTORY = """
import numpy as np

class API:
    def _rng(self, stream):
        return np.random.default_rng(sum(map(ord, stream)))
    def random(self, labels, *, stream):
        return self._rng(stream).integers(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8)
    def variation(self, images, labels, degree, *, stream):
        return np.clip(images + self._rng(stream).normal(0, 5 * degree, images.shape), 0, 255).astype(np.uint8)
"""


def embedded(folder: Path) -> list[str]:
    return ["model=digits_unet", "model.respacing=3"]


def untrained(folder: Path) -> list[str]:
    small = ["model.channels=[8,16]", "model.norm_groups=4", "model.head_channels=8", "model.features=null"]
    return ["model=digits_unet", "model.pretrained=null", "model.respacing=3", *small]


def patches(folder: Path) -> list[str]:
    return ["model=mnist_patches", "model.respacing=3"]


def stored_patches(folder: Path) -> list[str]:
    return ["model=diffusers", "model.pretrained=printed28", "model.patch=4", "model.image_size=28", "model.respacing=3"]


def printed(folder: Path) -> list[str]:
    return ["model=printed_digits", "model.image_size=8"]


def diffusers(folder: Path) -> list[str]:
    labels = ["model.labels=1", "model.null_label=false", "model.respacing=3", "model.features=null"]
    return ["model=diffusers", f"model.pretrained={saved(folder / 'pipeline')}", *labels]


def improved_diffusion(folder: Path) -> list[str]:
    torch.save(made_weights("mini_cond", 0), folder / "imagenet64_mini.pt")
    shape = ["model.image_size=32", "model.channels=[32,64,64,64]", "model.blocks=1", "model.attention_levels=[1,2]"]
    name = "model=improved_diffusion_imagenet64_cond"
    return [name, f"model.pretrained={folder}/imagenet64_mini.pt", "model.respacing=3", *shape]


def latent_unet(folder: Path) -> list[str]:
    return made_latent_unet(folder / "public")


def stable_diffusion(folder: Path) -> list[str]:
    rest = ["model.image_size=16", "model.steps=3", "model.labels=2", "model.prompts=[a cat,a dog]"]
    return ["model=stable_diffusion", f"model.pretrained={made_pipeline(folder)}", *rest]


def own_api(folder: Path) -> list[str]:
    (folder / "own_api_of_conformance.py").write_text(FACTORY)
    size = ["model.image_size=8", "model.image_channels=1", "model.labels=3", "model.request_size=4"]
    return ["model=callable", "model.factory=own_api_of_conformance:API", *size]


@dataclass
class Case:
    """`degree`: one that it has, and `wrong_degree` one that it lacks. `refused`: settings that `check` refuses, each alone."""

    overrides: Callable[[Path], list[str]]
    degree: float
    wrong_degree: float
    refused: dict[str, Any] = field(default_factory=dict)
    one_stream_a_sample: bool = True  # so that an image does not depend on those beside it; not of another's API
    known: bool = True  # whether parameters and FLOPs are known


MODELS = [
    Case(embedded, 2, 4, {"respacing": "nonsense", "guidance": -1.0, "norm_groups": 5}),
    Case(untrained, 2, 4, {"new_labels": True, "blocks": 0}),
    Case(patches, 2, 4, {"patch": 29, "blocks": 0}),
    Case(stored_patches, 2, 4, {"patch": 3, "image_size": 33}),
    Case(printed, 5, 21, {"image_size": 9, "labels": 3}),
    Case(diffusers, 2, 2.5, {"labels": 4, "guidance": 1.0}),
    Case(improved_diffusion, 2, 0, {"respacing": "nonsense"}),
    Case(latent_unet, 2, 4, {"patch": 2, "latent_channels": 0, "autoencoder_channels": []}),
    Case(stable_diffusion, 0.7, 1.5, {"prompts": []}),
    Case(own_api, 3, -1, {"factory": "nowhere", "request_size": 0}, one_stream_a_sample=False, known=False),
]

every_model = pytest.mark.parametrize("case", MODELS, ids=[case.overrides.__name__ for case in MODELS])
refusals = pytest.mark.parametrize(
    ("case", "key", "value"),
    [
        pytest.param(case, *setting, id=f"{case.overrides.__name__}-{setting[0]}")
        for case in MODELS
        for setting in case.refused.items()
    ],
)


@pytest.fixture
def settings(case, here) -> Model:
    return composed_model(*case.overrides(here))


@pytest.fixture
def api(settings) -> Any:
    return made(settings)


def made(settings: Model, seed: int = 0) -> Any:
    settings.prepare()
    return api_of(settings.build(Grey(), CPU, seed))


def some_labels(api: Any, count: int = 6) -> np.ndarray:
    return np.arange(count, dtype=np.int64) % api.num_labels


def test_every_model_that_users_can_choose_is_in_the_list(here):
    kinds = set()
    for case in MODELS:
        folder = here / case.overrides.__name__
        folder.mkdir()
        kinds.add(type(composed_model(*case.overrides(folder))))
    assert kinds == set(COMPONENTS["model"].values())


# Without weights


@every_model
def test_facts_need_no_network_with_weights(case, settings, monkeypatch):
    monkeypatch.setattr(type(settings), "build", lambda *_: pytest.fail("the model was built"))
    settings.check(Grey(closed=True))
    facts = settings.facts()
    assert facts.keys() == {"parameters", "flops"}
    assert all((value is not None) == case.known for value in facts.values())
    memory = settings.memory()
    assert (memory is not None and memory >= 0) == case.known
    assert settings.calls() >= 1
    assert settings.calls(case.degree) >= 1
    height, width, channels = settings.image_shape
    assert height == width > 0
    assert channels in (1, 3)


@every_model
def test_degrees_that_it_lacks_are_refused(case, settings):
    settings.check_degree("method.variation_degrees", case.degree, None)
    with rejects("method.variation_degrees", case.wrong_degree):
        settings.check_degree("method.variation_degrees", case.wrong_degree, None)


@refusals
def test_settings_that_cannot_be_used_are_refused_by_their_key(case, settings, key, value):
    with rejects(f"model.{key}", value):
        dataclasses.replace(settings, **{key: value}).check(Grey(closed=True))


# Its images


@every_model
def test_images_are_of_the_announced_shape_and_variations_of_the_same(case, settings, api):
    labels = some_labels(api)
    images = api.random(labels, stream="a")
    varied = api.variation(images, labels, case.degree, stream="b")
    for made_of in (images, varied):
        assert made_of.dtype == np.uint8
        assert made_of.shape == (len(labels), *settings.image_shape)


@every_model
def test_labels_are_all_that_it_announces(settings, api):
    assert api.num_labels == settings.labels >= 1
    images = api.random(np.array([0, settings.labels - 1]), stream="a")
    assert len(images) == 2


@every_model
def test_no_labels_make_no_images(settings, api):
    assert api.random(np.zeros(0, np.int64), stream="a").shape == (0, *settings.image_shape)


@every_model
def test_a_stream_makes_the_same_images_again_and_another_stream_others(case, settings, api):
    labels, again = some_labels(api), made(settings)
    images = api.random(labels, stream="a")
    assert np.array_equal(images, again.random(labels, stream="a"))
    assert not np.array_equal(images, api.random(labels, stream="b"))
    varied = api.variation(images, labels, case.degree, stream="v")
    assert np.array_equal(varied, again.variation(images, labels, case.degree, stream="v"))
    assert not np.array_equal(varied, api.variation(images, labels, case.degree, stream="w"))


@every_model
def test_an_image_does_not_depend_on_those_after_it(case, api):
    """But for rounding, which depends on the rows of a pass: see `models.passes`."""
    if not case.one_stream_a_sample:
        pytest.skip("its requests are the API's own")
    labels = some_labels(api)
    images = api.random(labels, stream="a")
    assert np.mean(images[:2] != api.random(labels[:2], stream="a")) < 1e-3
    varied = api.variation(images, labels, case.degree, stream="v")
    assert np.mean(varied[:2] != api.variation(images[:2], labels[:2], case.degree, stream="v")) < 1e-3


@every_model
def test_inputs_are_as_they_were_and_progress_is_told(case, api):
    labels = some_labels(api)
    images, told = api.random(labels, stream="a"), []  # type: ignore[var-annotated]
    before = images.copy(), labels.copy()
    api.variation(images, labels, case.degree, stream="b", advance=told.append)
    assert np.array_equal(images, before[0])
    assert np.array_equal(labels, before[1])
    assert sum(told) >= len(labels)


@every_model
def test_every_embedding_that_it_announces_can_be_asked_for(settings):
    images = np.zeros((3, *settings.image_shape), np.uint8)
    for name in settings.spaces.names - {EmbeddingName.inception, EmbeddingName.clip}:  # whose weights are others'
        vectors = settings.spaces.on(CPU)[name].embed(images)
        assert vectors.dtype == np.float32
        assert vectors.shape == (3, settings.spaces.cost(name, settings.image_shape)[1])
