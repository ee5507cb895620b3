"""Sensitivity, the mean embedding and its noise; equality with their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data.samples import SampleSet
from mean_embedding.features import (
    COUNT,
    EMBEDDED,
    PASS_ROWS,
    PIXEL_DISTANCE,
    FeatureMap,
    FourierFeatures,
    MeanEmbedding,
    PerceptualMoments,
    exact_sums,
    fourier_features,
    usual_distance,
)
from models.features.extractors import Pixels, PublicFeatures
from privacy.noise import NoiseSource
from tests.conformance.worlds import Grey

SHAPE = (8, 8, 1)


class Broken:
    """An embedding of numbers that a broken network may give: the first pixel chooses which."""

    device = torch.device("cpu")
    kinds = torch.tensor(
        [[math.nan, 1, 1], [math.inf, 0, 1], [-math.inf, math.inf, 0], [3e38, 3e38, 3e38], [1e-45, 0, 0], [0, 0, 0]]
    )

    def perceive(self, x: torch.Tensor) -> torch.Tensor:
        return self.kinds[((x[:, 0, 0, 0] + 1) * 127.5).round().long() % len(self.kinds)]


class Loud(FeatureMap):
    """A map that does not keep to its norm."""

    def of_vectors(self, v: torch.Tensor) -> torch.Tensor:
        return 1e100 * v


def network() -> PublicFeatures:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PublicFeatures(width=8, dim=5).eval()


def of(kind: str) -> FeatureMap:
    pixels = Pixels()
    made: dict[str, Any] = {
        "fourier": lambda: fourier_features(pixels, SHAPE, 60, [1.0], 0),
        "fourier, wild": lambda: fourier_features(pixels, SHAPE, 60, [1e-3], 0),
        "fourier, three scales": lambda: fourier_features(pixels, SHAPE, 60, [1.0, 2.0, 4.0], 0),
        "pixels": lambda: PerceptualMoments(pixels, SHAPE, 0.5),
        "first alone": lambda: PerceptualMoments(pixels, SHAPE, 0.0),
        "second alone": lambda: PerceptualMoments(pixels, SHAPE, 1.0),
        "network": lambda: PerceptualMoments(network(), SHAPE, 0.3),
        "broken": lambda: PerceptualMoments(Broken(), SHAPE, 0.5),
        "broken, fourier": lambda: FourierFeatures(Broken(), SHAPE, torch.full((4, 3), 1e3)),
        "loud": lambda: Loud(pixels, SHAPE),
    }
    return made[kind]()


KINDS = [
    "fourier",
    "fourier, wild",
    "fourier, three scales",
    "pixels",
    "first alone",
    "second alone",
    "network",
    "broken",
    "broken, fourier",
    "loud",
]
every_map = pytest.mark.parametrize("kind", KINDS)


def images(count: int, classes: int = 3, users: np.ndarray | None = None, pixels: str = "random") -> SampleSet:
    rng = np.random.default_rng(0)
    made = {
        "random": rng.integers(0, 256, (count, *SHAPE)),
        "black": np.zeros((count, *SHAPE)),
        "white": np.full((count, *SHAPE), 255),
        "one pixel": np.where(np.arange(64).reshape(SHAPE) == (np.arange(count) % 64)[:, None, None, None], 255, 0),
    }[pixels]
    return SampleSet(made.astype(np.uint8), rng.integers(0, classes, count), classes, users=users)


# Sensitivity


@every_map
@pytest.mark.parametrize("pixels", ["random", "black", "white", "one pixel"])
def test_one_image_changes_the_sums_by_at_most_1_in_its_own_row_and_by_what_it_gives_alone(kind, pixels):
    features, others, one = of(kind), images(9), images(12, pixels=pixels)
    before = exact_sums(features, others, 3)
    for i in range(len(one)):
        alone = exact_sums(features, one[i : i + 1], 3)
        assert np.linalg.norm(alone) <= 1
        assert not np.delete(alone, one.labels[i], 0).any()
        both = SampleSet(np.concatenate([others.images, one.images[i : i + 1]]), np.append(others.labels, one.labels[i]), 3)
        np.testing.assert_allclose(exact_sums(features, both, 3) - before, alone, atol=1e-9)


@every_map
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
@pytest.mark.parametrize("pixels", ["random", "white"])
def test_all_images_of_a_user_change_the_sums_by_at_most_1_together(kind, count, pixels):
    theirs = images(count, users=np.zeros(count, np.int64), pixels=pixels)
    assert np.linalg.norm(exact_sums(of(kind), theirs, 3)) <= 1
    assert np.linalg.norm(exact_sums(of(kind), theirs, 1)) <= 1


@pytest.mark.parametrize("kind", ["fourier", "network"])
def test_the_bound_is_reached_so_the_noise_is_not_larger_than_it_has_to_be(kind):
    alike = images(50, 1, users=np.zeros(50, np.int64), pixels="white")
    assert np.linalg.norm(exact_sums(of(kind), alike, 1)) == pytest.approx(1, abs=1e-6)


def test_what_is_no_number_adds_its_count_alone():
    samples = SampleSet(np.zeros((1, *SHAPE), np.uint8), np.zeros(1, np.int64), 1)  # the first kind: nan
    sums = exact_sums(of("broken"), samples, 1)
    assert sums[0, 0] == pytest.approx(COUNT)
    assert not sums[0, 1:].any()


def test_a_row_depends_on_no_other_image():
    features, samples = of("network"), images(PASS_ROWS)
    whole = features.of_images(samples.images)
    np.testing.assert_array_equal(features.of_images(samples.images[5:6]), whole[5:6])


# Definitions


def test_without_noise_the_mean_embedding_of_fourier_features_is_its_definition():
    features, samples = of("fourier"), images(200)
    assert isinstance(features, FourierFeatures)
    found = MeanEmbedding.of(exact_sums(features, samples, 3), len(samples), 0.0)
    w, x = features.frequencies.numpy().astype(float), samples.images.reshape(200, -1) / 255
    phi = np.concatenate([np.cos(x @ w.T), np.sin(x @ w.T)], 1) * np.sqrt(2 / 60)
    onehot = np.eye(3)[samples.labels]
    np.testing.assert_allclose(found.means, np.einsum("nk,nd->kd", onehot, phi) / 200, atol=1e-6)
    np.testing.assert_allclose(found.counts, onehot.sum(0))


def test_without_noise_the_perceptual_moments_are_their_definition():
    samples, s = images(100), 0.3
    found = MeanEmbedding.of(exact_sums(PerceptualMoments(Pixels(), SHAPE, s), samples, 3), len(samples), 0.0)
    for label in range(3):
        first, second = np.zeros(64), np.zeros(64)
        for image in samples.images[samples.labels == label]:
            v = image.ravel() / 255
            first += v / np.linalg.norm(v) / 100
            second += v**2 / np.linalg.norm(v**2) / 100
        np.testing.assert_allclose(found.means[label], [*(first * (1 - s) ** 0.5), *(second * s**0.5)], atol=1e-6)


@pytest.mark.parametrize("scales", [[2.0], [1.0, 2.0, 4.0]])
def test_products_of_fourier_features_are_the_mean_of_gaussian_kernels(scales):
    features = fourier_features(Pixels(), SHAPE, 40_000, scales, 0)
    x = images(6).images
    phi, v = features.of_images(x), x.reshape(6, -1) / 255
    kernel = np.mean([np.exp(-((v[:, None] - v[None]) ** 2).sum(2) / (2 * scale**2)) for scale in scales], axis=0)
    np.testing.assert_allclose(phi @ phi.T, kernel, atol=0.02)


def test_a_network_shows_all_its_layers_and_its_features_last():
    features, seen = network(), []
    for layer in features.body:
        if isinstance(layer, nn.SiLU):
            layer.register_forward_hook(lambda *call: seen.append(call[2].flatten(1)))
    x = torch.rand(2, 1, 8, 8) * 2 - 1
    perceived = features.perceive(x)
    vectors = features.body(x)
    assert torch.equal(perceived, torch.cat([*seen[: len(seen) // 2], vectors], 1))
    assert perceived.shape == (2, 8 * 64 + 8 * 64 + 16 * 16 + 5)


@pytest.mark.parametrize("kind", ["fourier", "pixels", "network"])
def test_what_a_generator_is_trained_through_is_what_private_images_are_seen_through(kind):
    features, samples = of(kind), images(7)
    x = torch.from_numpy(samples.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    x.requires_grad_()
    phi = features.of_batch(x)
    np.testing.assert_allclose(phi.detach().numpy(), features.of_images(samples.images), atol=1e-5)
    phi.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_the_noise_has_the_stated_deviation():
    sigma, size, classes = 3.0, 4000, 5
    noise = NoiseSource(bytes(32)).stream("x").gaussian(sigma, classes * (1 + size)).reshape(classes, 1 + size)
    found = MeanEmbedding.of(noise, 100, sigma)
    assert found.means.std() == pytest.approx(sigma / (100 * EMBEDDED), rel=0.02)
    assert found.noise == pytest.approx(sigma / COUNT)
    assert math.hypot(COUNT, EMBEDDED) == pytest.approx(1)


# The length scale


def test_the_length_scale_is_the_median_distance_of_public_images_or_a_constant():
    assert usual_distance(Grey(closed=True), 0) == pytest.approx(PIXEL_DISTANCE * 8)
    dataset = Grey(closed=True, public_count=90)
    x = dataset.public().images.reshape(90, -1) / 255
    apart = [np.linalg.norm(x[i] - x[j]) for i in range(90) for j in range(i)]
    assert usual_distance(dataset, 0) == pytest.approx(np.median(apart))


def test_frequencies_are_those_of_the_seed_and_of_the_scale():
    one, same, other, wide = (
        fourier_features(Pixels(), SHAPE, 20_000, [scale], seed).frequencies for scale, seed in ((1, 0), (1, 0), (1, 1), (4, 0))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.allclose(one, 4 * wide)
    assert float(one.std()) == pytest.approx(1, rel=0.01)
