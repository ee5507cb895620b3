"""U-Nets by their shape: the published parameter counts, what is refused, and the embedded model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data.dataset import ClassCounts
from data.datasets.digits import Digits
from models.features.spaces import EmbeddingName
from models.public.unet import LABELS, UNet
from tests.facts import FACTS
from tests.rejects import rejects

DIGITS = Digits(class_counts=ClassCounts.uniform)
DIGITS_SHAPE: dict[str, Any] = dict(
    image_size=8, image_channels=1, channels=[32, 64], blocks=1, attention_levels=[1], head_channels=8, norm_groups=16, labels=10
)
PAPER = {
    "dpd.unet32.ss0.c10": UNet(
        image_size=32, image_channels=3, channels=[192, 384, 384, 384], blocks=2, attention_levels=[1], labels=10
    ),
    "dpd.unet28.c10": UNet(image_size=28, image_channels=1, channels=[64, 128, 128], blocks=1, labels=10),
}


def digits_unet(**settings: Any) -> UNet:
    return UNet(**{"name": "digits_unet", "respacing": "4", "null_label": True, **DIGITS_SHAPE, **settings})


def count(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", PAPER)
def test_a_published_network_has_its_golden_parameter_count(name):
    assert count(PAPER[name].skeleton().network) == FACTS[name]["computed_value"]


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_the_calls_of_the_plan_are_the_calls_that_are_made(guidance):
    settings = digits_unet(guidance=guidance)
    model = settings.build(DIGITS, torch.device("cpu"), seed=0).denoiser
    calls: list[int] = []
    model.network.register_forward_pre_hook(lambda *_: calls.append(1))
    images = model.random(np.zeros(2, np.int64), stream="a")
    assert len(calls) == settings.calls()
    calls.clear()
    model.variation(images, np.zeros(2, np.int64), 3, stream="a", respacing="6")
    assert len(calls) == settings.calls(3, "6")


def test_random_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (digits_unet().build(DIGITS, torch.device("cpu"), seed).denoiser.network for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


def test_the_embedded_model_makes_digits_and_embeds_them():
    settings = digits_unet(pretrained="digits", features="digits")
    settings.check(DIGITS)
    model = settings.build(DIGITS, torch.device("cpu"), seed=0)
    assert count(model.denoiser.network) == count(settings.skeleton().network)
    images = model.api.random(np.arange(20) % 10, stream="a")
    assert (images.dtype, images.shape) == (np.uint8, (20, *DIGITS.shape))
    assert images.std() > 0
    for name in (EmbeddingName.pixels, EmbeddingName.public_features):
        assert len(model.embeddings[name].embed(images)) == 20


def test_new_labels_keep_all_weights_but_those_of_the_labels(tmp_path):
    trained = digits_unet(labels=7, null_label=False).load_unet(seed=1)
    trained.save_pretrained(tmp_path / "unet")
    with rejects("model.pretrained", tmp_path, "num_class_embeds", "7", "11"):
        digits_unet(pretrained=str(tmp_path)).check(DIGITS)
    settings = digits_unet(pretrained=str(tmp_path), new_labels=True)
    settings.check(DIGITS)
    taken, old = settings.load_unet(seed=0).state_dict(), trained.state_dict()
    assert taken.keys() == old.keys()
    assert len(taken[LABELS]) == 11
    assert all(torch.equal(taken[name], old[name]) for name in old if name != LABELS)
    assert torch.equal(taken[LABELS], settings.load_unet(seed=0).class_embedding.weight)
    assert settings.untrained_labels


REFUSED = [  # the first is named
    dict(new_labels=True),
    dict(respacing="ten"),
    dict(respacing="2000"),
    dict(guidance=-1),
    dict(guidance=1, null_label=False),
    dict(image_size=9, patch=1),
]


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_settings_that_cannot_run_are_refused_by_key(settings):
    key, value = next(iter(settings.items()))
    with rejects(f"model.{key}", value):
        digits_unet(**settings).check(DIGITS)


def test_missing_weights_are_refused_before_a_run_and_not_needed_for_a_plan():
    for key in ("pretrained", "features"):
        settings = digits_unet(**{key: "nowhere"})
        settings.check(DIGITS)
        with rejects(f"model.{key}", "nowhere"):
            settings.prepare()


@pytest.mark.parametrize(
    "degree",
    [
        0,
        5,
        2.5,
        -1,
        float("inf"),
        float("nan"),
    ],
)
def test_a_degree_outside_the_respacing_is_refused_by_key(degree):
    with rejects("method.variation_degrees", degree):
        digits_unet().check_degree("method.variation_degrees", degree, None)


@pytest.mark.parametrize(("degree", "respacing"), [(1, None), (4, None), (9.0, "10")])
def test_a_degree_of_the_respacing_is_accepted(degree, respacing):
    digits_unet().check_degree("method.variation_degrees", degree, respacing)
