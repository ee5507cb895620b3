from __future__ import annotations

import numpy as np
import pytest

from moments.estimate import Gaussians, empirical, estimate
from moments.mechanism import Weights, unweighted, weighted_sums

SIZE, GROUPS = 12, 5
WEIGHTS = Weights.of(0.1, 0.7, 0.7)


def vectors(count: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of different means and spreads, of norm at most 1; the private ones are the public ones, shifted and wider."""
    rng = np.random.default_rng(seed)
    groups = np.arange(count) % GROUPS
    centres = 0.05 * np.random.default_rng(7).normal(size=(GROUPS, SIZE))
    scale = 0.15 * np.linspace(1, 0.2, SIZE)
    z = centres[groups] + shift + (1 + shift) * scale * rng.normal(size=(count, SIZE))
    return z / np.maximum(1, np.linalg.norm(z, axis=1, keepdims=True)), groups


def noisy(z: np.ndarray, groups: np.ndarray, sigma: float, seed: int = 0, weights: Weights = WEIGHTS):
    sums = weighted_sums(z, groups, GROUPS, weights)
    return unweighted(sums + sigma * np.random.default_rng(seed).normal(size=sums.shape), SIZE, weights, sigma)


def distance(a: Gaussians, b: Gaussians) -> float:
    return float(np.sum((a.means - b.means) ** 2) + np.sum((a.covariances - b.covariances) ** 2))


PUBLIC = empirical(*vectors(5000, seed=1), GROUPS)


@pytest.mark.parametrize("prior", [None, PUBLIC], ids=["no public images", "public images"])
def test_without_noise_it_gives_the_empirical_moments_of_every_group(prior):
    z, groups = vectors(3000, seed=2, shift=0.05)
    found, true = estimate(noisy(z, groups, 0.0), len(z), prior), empirical(z, groups, GROUPS)
    np.testing.assert_allclose(found.counts, true.counts)
    np.testing.assert_allclose(found.means, true.means, atol=1e-9)
    np.testing.assert_allclose(found.covariances, true.covariances, atol=1e-9)


def test_where_noise_drowns_all_the_public_means_stay():
    """But for what is read off the noise by chance."""
    z, groups = vectors(3000, seed=2, shift=0.05)
    crude = noisy(z, groups, 300.0)
    found = estimate(crude, len(z), PUBLIC)
    assert np.sum((found.means - PUBLIC.means) ** 2) < 0.2 * np.sum((crude.means / 600 - PUBLIC.means) ** 2)


def test_eigenvalues_that_noise_makes_are_cut():
    """Of one direction that varies, among noise: what is left varies in few more."""
    z = np.zeros((3000, SIZE))
    z[:, 0] = 0.5 * np.random.default_rng(0).normal(size=3000).clip(-2, 2)
    groups = np.arange(3000) % GROUPS
    found = estimate(noisy(z, groups, 5.0), 3000, None).covariances
    values = np.linalg.eigvalsh(found)
    assert ((values > 1e-9).sum(1) < SIZE / 2 + 1).all()
    np.testing.assert_allclose(values[:, -1], 0.5**2, rtol=0.3)


@pytest.mark.parametrize("sigma", [1.0, 5.0, 20.0])
def test_it_is_closer_than_either_the_noisy_or_the_public_moments_alone(sigma):
    z, groups = vectors(3000, seed=2, shift=0.05)
    true, errors = empirical(z, groups, GROUPS), []
    for seed in range(5):
        sums = noisy(z, groups, sigma, seed)
        means = sums.means / true.counts[:, None]
        found = estimate(sums, len(z), PUBLIC)
        errors.append((np.sum((found.means - true.means) ** 2), np.sum((means - true.means) ** 2)))
    ours, plain = np.mean(errors, 0)
    assert ours < 1.05 * plain
    assert ours < np.sum((PUBLIC.means - true.means) ** 2)


@pytest.mark.parametrize("prior", [None, PUBLIC], ids=["no public images", "public images"])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 100.0])
def test_covariances_are_semidefinite_and_counts_positive_and_together_about_all(prior, sigma):
    z, groups = vectors(500, seed=3)
    found = estimate(noisy(z, groups, sigma), len(z), prior)
    assert np.linalg.eigvalsh(found.covariances).min() > -1e-9
    assert (found.counts > 0).all()
    assert np.isfinite(found.means).all()


def test_without_second_moments_the_covariances_are_the_public_ones():
    z, groups = vectors(500, seed=3)
    found = estimate(noisy(z, groups, 1.0, weights=Weights.of(0.2, 1, 0)), len(z), PUBLIC)
    np.testing.assert_array_equal(found.covariances, PUBLIC.covariances)


def test_draws_have_the_mean_and_covariance():
    drawn = PUBLIC.draw(2, 200_000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), PUBLIC.means[2], atol=2e-3)
    np.testing.assert_allclose(np.cov(drawn.T), PUBLIC.covariances[2], atol=2e-3)


def test_unequal_groups_are_counted_where_noise_is_small_and_taken_as_equal_where_it_is_large():
    z, _ = vectors(2000, seed=4)
    groups = np.repeat(np.arange(GROUPS), [1000, 400, 300, 200, 100])
    sharp, blurred = (estimate(noisy(z, groups, sigma), 2000, None).counts for sigma in (0.1, 1e5))
    np.testing.assert_allclose(sharp, [1000, 400, 300, 200, 100], rtol=0.05)
    assert blurred.std() < 200
