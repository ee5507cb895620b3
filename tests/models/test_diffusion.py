"""Generation: one stream for each sample, labels and guidance, and as many network calls as promised."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel

import models.diffusion.model
from data.images import to_uint8
from models.diffusion.model import PASS_ROWS, DiffusionModel
from models.diffusion.schedules import cosine_alpha_bar, linear_alpha_bar
from models.diffusion.stored import on_meta
from tests.toy import tiny_unet


class Stub:
    """In place of a U-Net: predicts a multiple of its label and remembers its calls."""

    def __init__(self, **config: Any):
        self.config = SimpleNamespace(**{"in_channels": 1, "sample_size": 4, "num_class_embeds": 6, **config})
        self.calls: list[tuple[float, list[int] | None]] = []

    def eval(self) -> None:
        pass

    def __call__(self, x: torch.Tensor, t: Any, labels: torch.Tensor | None) -> SimpleNamespace:
        self.calls.append((float(t), None if labels is None else labels.tolist()))
        scale = torch.zeros(len(x)) if labels is None else labels.float()
        return SimpleNamespace(sample=0.1 * scale[:, None, None, None].expand_as(x) + 0.5 * x)


def stubbed(**settings: Any) -> DiffusionModel:
    return DiffusionModel(Stub(), linear_alpha_bar(), 5, **{"respacing": "8", **settings})


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


def float_images(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch, labels: np.ndarray, variation: bool) -> torch.Tensor:
    """What `model` generates, before it is rounded to pixels."""
    kept: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> np.ndarray:
        kept.append(x)
        return to_uint8(x)

    monkeypatch.setattr(models.diffusion.model, "to_uint8", keep)
    if variation:
        images = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 1)).astype(np.uint8)[: len(labels)]
        model.variation(images, labels, 3, stream="a")
    else:
        model.random(labels, stream="a")
    return torch.cat(kept)


@pytest.mark.parametrize("variation", [False, True], ids=["random", "variation"])
@pytest.mark.parametrize("count", [1, 7, 64, 100])
def test_images_are_the_same_in_whatever_set_they_are_made(unet, monkeypatch, count, variation):
    labels = np.arange(128) % 10
    model = DiffusionModel(unet, linear_alpha_bar(), 10, "4")
    expected = float_images(model, monkeypatch, labels, variation)
    part = float_images(model, monkeypatch, labels[:count], variation)
    whole_passes = count - count % PASS_ROWS
    assert torch.equal(part[:whole_passes], expected[:whole_passes])
    # a shorter pass may round otherwise, in the seventh digit of eps, and x_0 of the first step is eps / sqrt(4e-5)
    assert torch.allclose(part, expected[:count], atol=1e-3)


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_any_number_of_processes_make_bitwise_what_one_makes(unet, monkeypatch, processes):
    labels = np.arange(300) % 10
    model = DiffusionModel(unet, linear_alpha_bar(), 10, "2")
    alone = model.random(labels, stream="a")
    total = np.zeros_like(alone)
    monkeypatch.setattr("tracking.ranks.world", lambda: processes)
    for share in range(processes):
        monkeypatch.setattr("tracking.ranks.share", lambda share=share: share)
        total += model.random(labels, stream="a")
    assert np.array_equal(total, alone)


def test_no_row_of_the_network_is_wasted_on_padding():
    model = stubbed()
    images = model.random(np.zeros(70, np.int64), stream="a")
    model.variation(images, np.zeros(70, np.int64), 3, stream="a")
    assert sum(len(labels) for _, labels in model.network.calls) == 70 * (8 + 3)


def test_bfloat16_is_for_the_network_alone(unet):
    exact, rough = (DiffusionModel(unet, linear_alpha_bar(), 10, "4", bfloat16=on) for on in (False, True))
    x, labels = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    with torch.inference_mode():
        eps, expected = rough.guided_noise(x, 100, labels), exact.guided_noise(x, 100, labels)
    assert eps.dtype == torch.float32
    assert 0 < (eps - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_sample_depends_on_its_number_and_label_alone():
    labels = np.arange(100) % 5
    every = stubbed().random(labels, stream="a")
    assert np.array_equal(stubbed().random(labels[:23], stream="a"), every[:23])
    swapped = labels.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert np.array_equal(stubbed().random(swapped, stream="a")[2:], every[2:])


def test_variations_follow_their_own_image():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
    labels = np.arange(20) % 5
    every = stubbed().variation(images, labels, 3, stream="a")
    changed = images.copy()
    changed[7] = 255 - changed[7]
    again = stubbed().variation(changed, labels, 3, stream="a")
    assert np.flatnonzero((again != every).any(axis=(1, 2, 3))).tolist() == [7]


@pytest.mark.parametrize(("settings", "stream"), [({"seed": 1}, "a"), ({}, "b")], ids=["seed", "stream"])
def test_another_seed_or_stream_is_another_image(settings, stream):
    labels = np.zeros(10, np.int64)
    first, other = stubbed().random(labels, stream="a"), stubbed(**settings).random(labels, stream=stream)
    assert (first != other).any(axis=(1, 2, 3)).all()
    assert np.array_equal(first, stubbed().random(labels, stream="a"))
    assert len(np.unique(first.reshape(10, -1), axis=0)) == 10


@pytest.mark.parametrize(("guidance", "times"), [(0.0, 1), (1.5, 2)])
def test_random_makes_n_calls_and_a_variation_as_many_as_its_degree(guidance, times):
    model = stubbed(guidance=guidance)
    images = model.random(np.zeros(3, np.int64), stream="a")
    assert len(model.network.calls) == 8 * times
    for degree, respacing in ((1, None), (5, None), (8, None), (11, "20")):
        model.network.calls.clear()
        model.variation(images, np.zeros(3, np.int64), degree, stream="a", respacing=respacing)
        assert len(model.network.calls) == degree * times


def test_the_network_is_told_the_labels_and_guidance_the_null_label():
    model = stubbed(guidance=1.0, respacing="1")
    model.random(np.array([4, 0, 2]), stream="a")
    assert [labels[:3] for _, labels in model.network.calls] == [[4, 0, 2], [5, 5, 5]]
    unconditional = DiffusionModel(Stub(num_class_embeds=None), linear_alpha_bar(), 1, "1")
    unconditional.random(np.array([0, 0]), stream="a")
    assert unconditional.network.calls == [(0.0, None)]


@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_guidance_moves_the_prediction_away_from_the_null_label(guidance):
    x, labels = torch.zeros(2, 1, 4, 4), torch.tensor([4, 1])
    eps = stubbed(guidance=guidance).guided_noise(x, 0, labels)
    expected = 0.1 * ((1 + guidance) * labels - guidance * 5)
    assert torch.allclose(eps[:, 0, 0, 0], expected)


def test_a_learned_variance_is_left_aside():
    class Learned(Stub):
        def __call__(self, x, t, labels):
            return SimpleNamespace(sample=torch.cat([x, torch.full_like(x, torch.nan)], dim=1))

    model = DiffusionModel(Learned(), linear_alpha_bar(), 5, "4")
    assert torch.equal(model.guided_noise(torch.ones(2, 1, 4, 4), 0, torch.tensor([0, 1])), torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_rescaled_timestep_reaches_the_network_unrounded(unet, scale):
    model = DiffusionModel(unet.eval(), cosine_alpha_bar(), 10, "40", timestep_scale=scale)
    x, labels = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 4])
    with torch.inference_mode():
        expected = unet(x, torch.tensor([17 * scale]), labels).sample
        assert torch.allclose(model.guided_noise(x, 17, labels), expected, atol=1e-6)


def test_progress_adds_up_to_the_number_of_images():
    done: list[int] = []
    stubbed().random(np.zeros(100, np.int64), stream="a", advance=done.append)
    assert done == [64, 36]


def test_no_labels_make_no_images():
    assert stubbed().random(np.zeros(0, np.int64), stream="a").shape == (0, 4, 4, 1)


def test_flops_are_counted_without_weights(unet):
    shapes = on_meta({key: value for key, value in unet.config.items() if not key.startswith("_")})
    assert sum(p.numel() for p in shapes.parameters()) == sum(p.numel() for p in unet.parameters())
    model = DiffusionModel(shapes, linear_alpha_bar(), 10, "4")
    counted = model.flops()
    assert counted["forward"] > 2 * sum(p.numel() for p in unet.parameters())
    assert 1.8 < counted["backward"] / counted["forward"] < 2.1
    shapes.requires_grad_(False)
    assert model.flops() == {"forward": counted["forward"], "backward": 0}


@pytest.mark.parametrize("alpha_bar", [linear_alpha_bar(), cosine_alpha_bar()], ids=["linear", "cosine"])
def test_a_saved_model_is_what_diffusers_loads(unet, alpha_bar, tmp_path):
    DiffusionModel(unet, alpha_bar, 10, "4").save(tmp_path)
    scheduler: Any = DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    assert np.allclose(scheduler.alphas_cumprod.numpy(), alpha_bar, rtol=1e-4)
    loaded: Any = UNet2DModel.from_pretrained(tmp_path / "unet")
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), unet.parameters(), strict=True))


def test_a_model_of_any_memory_layout_is_saved(unet, tmp_path):
    network = tiny_unet().to(memory_format=torch.channels_last)
    DiffusionModel(network, linear_alpha_bar(), 10, "4").save(tmp_path)
    again = DiffusionModel.load(tmp_path, 0, torch.device("cpu")).network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in tiny_unet().state_dict().items())


class OnLatents(DiffusionModel):
    """Its decoder makes two pixels each way, and three colours, of every latent."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (2 * self.shape[1], 2 * self.shape[2], 3)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        return super().encode(images[:, ::2, ::2, :1])

    def decode(self, x: torch.Tensor) -> np.ndarray:
        return super().decode(x).repeat(2, 1).repeat(2, 2).repeat(3, 3)


@pytest.mark.parametrize("count", [0, 3])
def test_a_denoiser_of_latents_makes_images_of_its_decoder_s_shape(count):
    model, labels = OnLatents(Stub(), linear_alpha_bar(), 5, "8"), np.arange(count)
    images = model.random(labels, stream="a")
    assert images.shape == (count, 8, 8, 3)
    assert model.variation(images, labels, 3, stream="b").shape == (count, 8, 8, 3)
