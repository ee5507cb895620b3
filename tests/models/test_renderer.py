"""A public model that is a program: printed digits, and warps of an image that grow with the degree."""

from __future__ import annotations

import numpy as np
import pytest

from data.dataset import ClassCounts
from data.datasets.printed import printed, warp
from data.datasets.published import Published
from models.neighbours import nearest
from models.public.renderer import DEGREES, PrintedDigits, Renderer
from tests.command import call, typed
from tests.rejects import rejects

LABELS = np.arange(40) % 10


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


@pytest.mark.parametrize("size", [8, 28])
def test_random_digits_are_told_apart_as_well_as_those_of_the_data_set(size):
    """By the label of the nearest of 2,000 others: the bends are strong, so neither does better than about 60 %."""
    known, names = printed(2000, size=size)

    def told(images: np.ndarray, labels: np.ndarray) -> float:
        assert (images.dtype, images.shape) == (np.uint8, (len(labels), size, size, 1))
        return float((names[nearest(flat(images), flat(known))] == labels).mean())

    labels = np.arange(600) % 10
    random = told(Renderer(size, seed=0).random(labels, stream="a"), labels)
    assert random > 0.5
    assert random == pytest.approx(told(*printed(600, seed=5, size=size)), abs=0.1)  # two standard errors are 0.06


def test_a_sample_depends_on_its_number_label_and_stream_alone():
    api = Renderer(28, seed=0)
    every = api.random(LABELS, stream="a")
    assert np.array_equal(api.random(LABELS[:7], stream="a"), every[:7])
    assert (api.random(LABELS, stream="b") != every).any(axis=(1, 2, 3)).all()
    assert (Renderer(28, seed=1).random(LABELS, stream="a") != every).any(axis=(1, 2, 3)).all()


def test_variations_move_further_from_their_image_as_the_degree_grows():
    api = Renderer(28, seed=0)
    images = api.random(LABELS, stream="a")
    moved = [np.abs(api.variation(images, LABELS, degree, stream="v") - images.astype(float)).mean() for degree in (1, 4, 10, 20)]
    assert moved == sorted(moved)
    assert moved[0] < 0.3 * moved[-1]


def test_strokes_stay_as_crisp_as_they_were_over_many_variations():
    api = Renderer(28, seed=0)
    images = api.random(LABELS, stream="a")

    def grey(x: np.ndarray) -> float:
        return float(((x > 40) & (x < 215)).mean() / (x >= 215).mean())

    varied = images
    for k in range(8):
        varied = api.variation(varied, LABELS, 3, stream=f"v{k}")
    assert grey(varied) < 1.2 * grey(images)


def test_no_warp_is_the_image_itself():
    import torch

    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    none = np.zeros(3)
    assert torch.allclose(warp(x, none, none, np.ones(3), np.zeros((3, 2, 4, 4))), x, atol=1e-4)


def test_wrong_settings_are_refused_by_key():
    mnist = Published(name="mnist", class_counts=ClassCounts.uniform)
    with rejects("model.image_size", 32):
        PrintedDigits(image_size=32).check(mnist)
    with rejects("method.variation_degrees", DEGREES + 1):
        PrintedDigits().check_degree("method.variation_degrees", DEGREES + 1, None)
    with rejects("method.respacings", "10", "model=printed_digits"):
        PrintedDigits().check_respacing("method.respacings", "10")


def test_private_evolution_runs_on_it(here):
    settings = ["+experiment=smoke", "model=printed_digits", "model.image_size=8", "eval=none", "device=cpu"]
    assert call(*settings).code == 0
    assert typed(*settings).model.image_shape == (8, 8, 1)
