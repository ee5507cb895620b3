"""Random changes that leave the class as it is."""

from __future__ import annotations

import torch

from data.augmentations import Augmentation, augmented


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_about_half_of_the_images_are_mirrored_and_the_rest_left():
    x = torch.randn(400, 1, 4, 4, generator=rng())
    out = augmented(x, [Augmentation.flip], rng())
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_colour_is_a_line_through_each_images_values():
    x = torch.rand(50, 3, 8, 8, generator=rng()) * 0.5 - 0.5  # far from where values are clipped
    out = augmented(x, [Augmentation.colour], rng())
    centred, changed = x.flatten(1) - x.flatten(1).mean(1, keepdim=True), out.flatten(1) - out.flatten(1).mean(1, keepdim=True)
    slope = (centred * changed).sum(1) / centred.square().sum(1)
    assert torch.allclose(changed, slope[:, None] * centred, atol=1e-4)
    assert 0.64 <= slope.min() < 0.9
    assert 1.1 < slope.max() <= 1.44


def test_changes_follow_one_another_and_none_changes_nothing():
    x = torch.randn(8, 1, 8, 8, generator=rng())
    both, one_by_one = rng(), rng()
    out = augmented(x, [Augmentation.crop, Augmentation.flip], both)
    first = augmented(x, [Augmentation.crop], one_by_one)
    assert torch.equal(out, augmented(first, [Augmentation.flip], one_by_one))
    assert torch.equal(augmented(x, [], rng()), x)
