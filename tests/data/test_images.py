"""Pixels to network inputs and back; random shifts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.images import random_shift, to_network, to_uint8


def test_every_grey_level_survives_the_round_trip():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    x = to_network(images)
    assert (x.dtype, tuple(x.shape)) == (torch.float32, (1, 3, 16, 16))
    assert (x.min().item(), x.max().item()) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(x), images)


def test_pixels_stay_where_they_are():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    assert to_network(images)[1, 2, 3, 0].item() == pytest.approx(images[1, 3, 0, 2] / 127.5 - 1, abs=1e-6)


def test_values_outside_the_range_are_clipped_and_others_rounded():
    x = torch.tensor([-3.0, -1.0, 0.0, 0.5 / 127.5, 1.0, 7.0]).reshape(1, 1, 2, 3)
    assert to_uint8(x).ravel().tolist() == [0, 0, 128, 128, 255, 255]


@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (3, 3, 5, 7)])
def test_a_shift_is_a_crop_of_the_image_with_its_edge_repeated(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    pad, (_, _, height, width) = 2, shape
    shifted = random_shift(x, pad, torch.Generator().manual_seed(1))
    assert shifted.shape == x.shape
    padded = torch.nn.functional.pad(x, (pad,) * 4, mode="replicate")
    moves = [(top, left) for top in range(2 * pad + 1) for left in range(2 * pad + 1)]
    for i in range(shape[0]):
        assert any(torch.equal(shifted[i], padded[i, :, t : t + height, left : left + width]) for t, left in moves)


def test_shifts_reach_every_position_and_are_repeatable():
    x = torch.arange(25.0).reshape(1, 1, 5, 5).expand(500, 1, 5, 5)
    shifted = random_shift(x, 1, torch.Generator().manual_seed(0))
    assert len(torch.unique(shifted.flatten(1), dim=0)) == 9
    assert torch.equal(shifted, random_shift(x, 1, torch.Generator().manual_seed(0)))
