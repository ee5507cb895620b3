"""Patches: a permutation of the pixels, zeros around them, and a model that is itself in all else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.diffusion.model import DiffusionModel
from models.diffusion.patches import from_patches, patched_size, to_patches
from models.public.unet import UNet
from tests.toy import denoiser, tiny_unet

CPU = torch.device("cpu")
PADDINGS = [  # image, patch, levels of the U-Net, its side
    (28, 4, 2, 8),
    (28, 2, 2, 14),
    (28, 2, 3, 16),
    (9, 2, 1, 5),
    (9, 2, 2, 6),
    (8, 3, 2, 4),
    (8, 8, 1, 1),
    (8, 1, 4, 8),
]
paddings = pytest.mark.parametrize(("image_size", "patch", "levels", "size"), PADDINGS)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def patched(patch: int, image_size: int, **settings: Any) -> DiffusionModel:
    """Around a tiny U-Net of 8×8 positions."""
    return denoiser(tiny_unet(in_channels=patch**2, out_channels=patch**2), patch=patch, image_size=image_size, **settings)


@paddings
def test_a_network_is_as_large_as_the_image_needs_and_halves_evenly(image_size, patch, levels, size):
    assert patched_size(image_size, patch, levels) == size
    assert size * patch >= image_size
    if patch > 1:
        assert size % 2 ** (levels - 1) == 0
        assert (size - 2 ** (levels - 1)) * patch < image_size


@paddings
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_a_permutation_with_zeros_and_back_is_the_image(image_size, patch, levels, size, channels):
    x = noise(2, channels, image_size, image_size)
    patches = to_patches(x, patch, size)
    assert patches.shape == (2, channels * patch**2, size, size)
    padding = torch.zeros(2, channels * ((size * patch) ** 2 - image_size**2))
    pixels = torch.cat([x.flatten(1), padding], dim=1)
    assert torch.equal(patches.flatten(1).sort().values, pixels.sort().values)
    assert torch.equal(from_patches(patches, patch, image_size), x)


def test_zeros_lie_around_the_image_evenly():
    """Grey, as an image is scaled to [-1, 1]."""
    whole = F.pixel_shuffle(to_patches(torch.ones(1, 1, 28, 28), 4, 8), 4)[0, 0]
    assert whole.shape == (32, 32)
    assert bool((whole[2:30, 2:30] == 1).all())
    assert float(whole.sum()) == 28 * 28
    odd = F.pixel_shuffle(to_patches(torch.ones(1, 1, 9, 9), 2, 5), 2)[0, 0]
    assert bool((odd[:9, :9] == 1).all())
    assert float(odd.sum()) == 81


def test_a_patch_is_one_position():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert to_patches(x, 2, 2)[0, :, 0, 1].tolist() == [2, 3, 6, 7]


@paddings
def test_gradients_flow_to_every_pixel_and_from_no_other(image_size, patch, levels, size):
    x = noise(1, 1, image_size, image_size).requires_grad_()
    back = from_patches(to_patches(x, patch, size) * 3, patch, image_size)
    (gradient,) = torch.autograd.grad(back.sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 3))
    patches = noise(1, patch**2, size, size).requires_grad_()
    (gradient,) = torch.autograd.grad(from_patches(patches, patch, image_size).sum(), patches)
    assert float(gradient.sum()) == image_size**2


@pytest.mark.parametrize(("patch", "image_size"), [(2, 16), (2, 15), (2, 12), (3, 24), (4, 28)])
@pytest.mark.parametrize("learned_variance", [False, True])
def test_a_model_of_patches_is_the_network_between_unshuffle_and_shuffle(patch, image_size, learned_variance):
    channels = patch**2
    unet = tiny_unet(in_channels=channels, out_channels=channels * (2 if learned_variance else 1)).eval()
    model = denoiser(unet, patch=patch, image_size=image_size)
    x, t, labels = noise(3, 1, image_size, image_size), torch.tensor([5, 70, 900]), torch.tensor([0, 4, 10])
    missing = 8 * patch - image_size
    before = missing // 2
    with torch.no_grad():
        padded = F.pad(x, (before, missing - before, before, missing - before))
        sample = F.pixel_shuffle(unet(F.pixel_unshuffle(padded, patch), t, labels).sample[:, :channels], patch)
        expected = sample[:, :, before : before + image_size, before : before + image_size]
        assert torch.equal(model.predict_noise(x, t, labels), expected)


def test_the_padding_is_zero_at_every_step_of_sampling():
    model = patched(2, 12)
    seen: list[torch.Tensor] = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(F.pixel_shuffle(inputs[0], 2)))
    images = model.random(np.arange(3), stream="a")
    assert images.shape == (3, 12, 12, 1)
    model.variation(images, np.arange(3), 2, stream="b")
    assert len(seen) == 6
    for x in seen:
        outside = x.clone()
        outside[..., 2:14, 2:14] = 0
        assert not outside.any()
        assert x.any()


def test_patches_of_one_pixel_change_no_bit():
    unet = tiny_unet().eval()
    x, t, labels = noise(3, 1, 8, 8), torch.tensor([5, 70, 900]), torch.arange(3)
    assert to_patches(x, 1, 8) is x
    assert from_patches(x, 1, 8) is x
    with torch.no_grad():
        assert torch.equal(denoiser(unet, patch=1, image_size=8).predict_noise(x, t, labels), unet(x, t, labels).sample)


# Costs


SMALL: dict[str, Any] = dict(image_channels=1, blocks=1, channels=[8, 16], norm_groups=4, head_channels=8, labels=10)


def test_a_plan_counts_the_network_between_the_patches():
    """As one of the same layers that is given as many channels without them."""
    made = UNet(name="patches", image_size=28, patch=4, **SMALL)
    plain = UNet(name="plain", image_size=8, **{**SMALL, "image_channels": 16})
    assert made.image_shape == (28, 28, 1)
    assert made.facts() == plain.facts()
    assert made.skeleton().flops() == plain.skeleton().flops()
    assert made.skeleton().activation_bytes() == plain.skeleton().activation_bytes()
    assert made.memory() == plain.memory()
    pixels = UNet(name="pixels", image_size=28, **SMALL)
    assert made.skeleton().flops()["forward"] < pixels.skeleton().flops()["forward"] / 8
    assert made.memory() < pixels.memory() / 8


def test_what_a_plan_counts_is_what_a_network_with_weights_needs():
    made = UNet(name="patches", image_size=15, patch=2, **SMALL)
    model = made._denoiser(made.load_unet(0), CPU, 0)
    assert model.shape == (1, 15, 15)
    assert [tensor.shape[1:] for tensor in model.dummy_inputs(2)] == [(1, 15, 15), (), ()]
    assert model.flops()["forward"] == made.skeleton().flops()["forward"]
    for told, needed in (
        (made.skeleton().flops()["backward"], model.flops()["backward"]),
        (made.skeleton().activation_bytes(), model.activation_bytes()),
    ):
        assert told == pytest.approx(needed, rel=0.03)  # attention on a processor differs from that on the meta device


# Files


@pytest.mark.parametrize(("patch", "image_size"), [(1, 8), (2, 16), (2, 13)])
def test_a_saved_model_is_loaded_as_it_was(patch, image_size, tmp_path):
    model = patched(patch, image_size)
    model.save(tmp_path)
    stored = json.loads((tmp_path / "sampling.json").read_text())
    assert (stored["patch"], stored["image_size"]) == (patch, image_size)
    again = DiffusionModel.load(tmp_path, 0, CPU)
    assert (again.patch, again.shape) == (patch, (1, image_size, image_size))
    assert np.array_equal(model.random(np.arange(3), stream="a"), again.random(np.arange(3), stream="a"))


def test_a_model_from_before_there_were_patches_has_none(tmp_path):
    model = denoiser()
    model.save(tmp_path)
    file = tmp_path / "sampling.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in stored.items() if key not in ("patch", "image_size")}))
    again = DiffusionModel.load(tmp_path, 0, CPU)
    assert (again.patch, again.shape) == (1, (1, 8, 8))
    assert np.array_equal(model.random(np.arange(3), stream="a"), again.random(np.arange(3), stream="a"))


def test_without_a_size_an_image_is_all_that_the_network_takes():
    assert denoiser(tiny_unet(in_channels=9, out_channels=9), patch=3).shape == (1, 24, 24)
