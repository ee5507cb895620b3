from __future__ import annotations

from typing import Any

import pytest
import torch

from data.augmentations import Augmentation
from dp_finetune.objective import Objective
from models.diffusion.timesteps import Interval, check_mixture
from privacy.noise import NoiseSource
from tests.rejects import rejects
from tests.toy import denoiser

DENOISER = denoiser()

CIFAR = [
    Interval(weight=0.015, low=0, high=30),
    Interval(weight=0.785, low=30, high=600),
    Interval(weight=0.2, low=600, high=1000),
]


def objective(**changes: Any) -> Objective:
    settings: dict[str, Any] = dict(
        denoiser=DENOISER,
        mixture=CIFAR,
        augmult=4,
        augmentations=[],
        label_dropout=0.0,
        noise=NoiseSource(bytes(32)),
    )
    return Objective(**{**settings, **changes})


X, LABELS = torch.rand(6, 1, 8, 8) * 2 - 1, torch.arange(6)


def test_timesteps_follow_the_mixture():
    views = objective(augmult=20_000).views(X[:1], LABELS[:1], [0], 1)
    for interval in CIFAR:
        inside = ((views.t >= interval.low) & (views.t < interval.high)).float().mean()
        assert abs(inside - interval.weight) < 4 * (interval.weight / 20_000) ** 0.5
    assert views.t.min() >= 0
    assert views.t.max() <= 999


def test_views_of_an_example_do_not_depend_on_its_batch():
    together = objective().views(X, LABELS, range(6), step=3)
    alone = objective().views(X[4:5], LABELS[4:5], [4], step=3)
    for whole, part in zip((together.x_t, together.t, together.noise), (alone.x_t, alone.t, alone.noise), strict=True):
        assert torch.equal(whole[16:20], part)


def test_views_are_drawn_by_the_secret_key_so_that_no_row_number_tells_them():
    first, other = (objective(noise=NoiseSource(bytes([i] * 32))).views(X[:1], LABELS[:1], [0], step=1) for i in (1, 2))
    assert not torch.equal(first.t, other.t)
    assert not torch.equal(first.noise, other.noise)


def test_every_step_and_every_view_draws_anew():
    first, second = (objective().views(X[:1], LABELS[:1], [0], step) for step in (1, 2))
    assert not torch.equal(first.noise, second.noise)
    assert len({tuple(noise.flatten().tolist()) for noise in first.noise}) == 4


def test_noised_views_are_the_forward_process():
    made = objective()
    views = made.views(X, LABELS, range(6), 1)
    a = made.alpha_bar[views.t].reshape(-1, 1, 1, 1)
    assert torch.allclose((views.x_t - (1 - a).sqrt() * views.noise) / a.sqrt(), X.repeat_interleave(4, 0), atol=1e-2)


@pytest.mark.parametrize("augmentation", list(Augmentation))
def test_augmentations_change_images_and_keep_their_range(augmentation):
    made = objective(augmentations=[augmentation], augmult=32, mixture=[Interval(weight=1.0, low=0, high=1)])
    views = made.views(X[:1], LABELS[:1], [0], 1)
    a = made.alpha_bar[0]
    images = (views.x_t - (1 - a).sqrt() * views.noise) / a.sqrt()
    assert len({tuple(image.flatten().mul(100).round().tolist()) for image in images}) >= 2
    assert images.abs().max() <= 1 + 1e-4


def test_label_dropout_gives_the_null_label():
    views = objective(label_dropout=0.25, augmult=4000).views(X[:1], LABELS[3:4], [0], 1)
    assert set(views.labels.tolist()) == {3, 10}
    assert abs((views.labels == 10).float().mean() - 0.25) < 0.03


BAD = {
    "weights": [Interval(weight=0.5, low=0, high=30)],
    "negative": [Interval(weight=-0.5, low=0, high=30), Interval(weight=1.5, low=30, high=60)],
    "order": [Interval(weight=0.5, low=30, high=60), Interval(weight=0.5, low=0, high=30)],
    "overlap": [Interval(weight=0.5, low=0, high=31), Interval(weight=0.5, low=30, high=60)],
    "empty": [],
    "empty interval": [Interval(weight=1.0, low=30, high=30)],
    "beyond": [Interval(weight=1.0, low=0, high=1001)],
}


@pytest.mark.parametrize("mixture", BAD.values(), ids=BAD.keys())
def test_a_wrong_mixture_is_refused(mixture):
    with rejects("method.timestep_mixture"):
        check_mixture("method.timestep_mixture", mixture, 1000)


def test_the_papers_mixture_passes():
    check_mixture("method.timestep_mixture", CIFAR, 1000)
