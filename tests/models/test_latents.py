"""Latents: a frozen autoencoder around the diffusion model, made on public images alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from data.samples import SampleSet
from models.diffusion.autoencoder import Autoencoder
from models.diffusion.model import DiffusionModel
from models.diffusion.samplers import ddim
from models.diffusion.schedules import linear_alpha_bar, respaced_timesteps
from models.public.autoencoding import train_autoencoder
from tests.rejects import rejects
from tests.toy import tiny_unet
from tracking import ranks

CPU = torch.device("cpu")


def tiny_vae(channels: int = 1) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        vae: Any = AutoencoderKL(
            in_channels=channels, out_channels=channels, latent_channels=2, block_out_channels=(8, 8), norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
        )  # fmt: skip
    return vae


def pictures(count: int, side: int = 14) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1)).astype(np.uint8)


def latent_model() -> DiffusionModel:
    unet = tiny_unet(in_channels=2, out_channels=2)
    return DiffusionModel(unet, linear_alpha_bar(), 10, "4", autoencoder=Autoencoder(tiny_vae(), image_size=14, side=8))


def test_a_latent_is_the_scaled_mean_of_the_posterior_of_the_padded_image():
    vae, images = tiny_vae(), pictures(3)
    x = np.full((3, 1, 16, 16), -1.0)
    x[:, :, 1:15, 1:15] = images.transpose(0, 3, 1, 2) / 127.5 - 1
    expected = 0.5 * vae.double().encode(torch.from_numpy(x)).latent_dist.mean
    found = Autoencoder(tiny_vae(), 14, 8).encode(images)
    assert found.shape == (3, 2, 8, 8)
    assert found.dtype == torch.float32
    assert (found.double() - expected).abs().max() < 1e-5


def test_latents_are_decoded_to_images_without_the_padding_and_depend_on_no_other():
    autoencoder = Autoencoder(tiny_vae(), 14, 8)
    z = autoencoder.encode(pictures(130))
    assert autoencoder.decode(z).shape == (130, 14, 14, 1)
    moved = np.roll(pictures(130), 77, axis=0)
    assert torch.equal(autoencoder.encode(moved), z.roll(77, 0))
    assert np.array_equal(autoencoder.decode(z.roll(77, 0)), np.roll(autoencoder.decode(z), 77, axis=0))
    assert autoencoder.encode(pictures(0)).shape == (0, 2, 8, 8)
    assert not any(p.requires_grad for p in autoencoder.network.parameters())


def test_samples_are_made_of_latents_that_nothing_clips():
    model, labels = latent_model(), np.array([1, 2, 3])
    images = model.random(labels, stream="a")
    assert images.shape == (3, *model.image_shape) == (3, 14, 14, 1)
    assert np.array_equal(images[:2], model.random(labels[:2], stream="a"))
    varied = model.variation(images, labels, 2, stream="b")
    assert varied.shape == images.shape
    predict = lambda x, t: 0.1 * x  # noqa: E731
    far, timesteps = torch.full((1, 2, 8, 8), 40.0), respaced_timesteps(1000, "4")
    assert ddim(predict, far, timesteps, model.alpha_bar, None).abs().min() > 1
    assert ddim(predict, far, timesteps, model.alpha_bar).abs().max() <= 1


def test_a_saved_latent_model_makes_the_same_images(tmp_path):
    model, labels = latent_model(), np.array([1, 2])
    model.save(tmp_path)
    loaded = DiffusionModel.load(tmp_path, 0, CPU)
    assert np.array_equal(model.random(labels, stream="a"), loaded.random(labels, stream="a"))
    AutoencoderKL.from_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "config.json").unlink()
    with rejects("model", tmp_path, "vae/"):
        DiffusionModel.load(tmp_path, 0, CPU)


def test_training_an_autoencoder_lowers_its_error_and_scales_its_latents(tmp_path):
    rng = np.random.default_rng(0)
    images = np.repeat(np.repeat(rng.integers(0, 2, (64, 7, 7, 1)) * 255, 2, 1), 2, 2).astype(np.uint8)
    samples, autoencoder = SampleSet(images, np.zeros(64, np.int64), 1), Autoencoder(tiny_vae(), 14, 8)

    def error() -> float:
        return float(np.abs(autoencoder.decode(autoencoder.encode(images)).astype(float) - images).mean())

    before = error()
    assert list(train_autoencoder(autoencoder, samples, 60, 32, 0, tmp_path / "training.pt", CPU)) == list(range(1, 61))
    assert error() < 0.5 * before
    assert float(autoencoder.encode(images).std()) == pytest.approx(1, rel=0.01)
    assert not any(p.requires_grad for p in autoencoder.network.parameters())


def test_a_killed_training_of_an_autoencoder_goes_on_to_the_same_bits(tmp_path):
    samples = SampleSet(pictures(20), np.zeros(20, np.int64), 1)

    def training(name: str) -> tuple[Autoencoder, Iterator[int]]:
        autoencoder = Autoencoder(tiny_vae(), 14, 8)
        return autoencoder, train_autoencoder(autoencoder, samples, 5, 4, 0, tmp_path / name, CPU, checkpoint_steps=2)

    whole, steps = training("whole.pt")
    assert list(steps) == [1, 2, 3, 4, 5]
    assert list(islice(training("parts.pt")[1], 3)) == [1, 2, 3]
    resumed, steps = training("parts.pt")
    assert list(steps) == [3, 4, 5]
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True))
    assert whole.network.config.scaling_factor == resumed.network.config.scaling_factor


def test_processes_that_share_an_autoencoders_batches_add_up_to_its_gradient(monkeypatch, tmp_path):
    samples, summed = SampleSet(pictures(20), np.zeros(20, np.int64), 1), []
    monkeypatch.setattr(ranks, "sum_over_ranks", lambda tensors: summed.append([one.clone() for one in tensors]))
    for share, world in ((0, 1), (0, 2), (1, 2), (7, 8)):  # a batch of 7: the eighth process has no image
        monkeypatch.setattr(ranks, "share", lambda share=share: share)
        monkeypatch.setattr(ranks, "world", lambda world=world: world)
        path = tmp_path / f"{share}_{world}.pt"
        assert list(train_autoencoder(Autoencoder(tiny_vae(), 14, 8), samples, 1, 7, 0, path, CPU)) == [1]
    whole, first, second, nothing = summed
    for one, *parts in zip(whole, first, second, strict=True):
        assert torch.allclose(one, sum(parts), atol=1e-6)
    assert not any(one.any() for one in nothing)


def made_latent_unet(folder: Path) -> list[str]:
    """Settings of a tiny one with random weights, in a folder as pre-training leaves it."""
    model = DiffusionModel(
        tiny_unet(in_channels=2, out_channels=2, sample_size=4),
        linear_alpha_bar(),
        10,
        "4",
        autoencoder=Autoencoder(tiny_vae(), 8, 4),
    )
    model.save(folder)
    shape = [
        "model.image_size=8",
        "model.channels=[8,16]",
        "model.norm_groups=4",
        "model.head_channels=8",
        "model.latent_channels=2",
    ]
    rest = ["model.autoencoder_channels=[8,8]", "model.features=null", "model.respacing=3"]
    return ["model=latent_unet", f"model.pretrained={folder}", *shape, *rest]
