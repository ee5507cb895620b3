"""Sensitivity, sums and noise of the moments' mechanism; equality with what numpy has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moments.mechanism import Weights, location, location_sums, smat, svec, unweighted, weighted_sums
from privacy.gaussian import gaussian_epsilon

WEIGHTS = [Weights.of(0.1, 0.7, 0.7), Weights.of(1, 1, 0), Weights.of(1, 0, 1e-3), Weights.of(0.05, 0.45, 0.89)]


def clipped(z: np.ndarray) -> np.ndarray:
    return z / np.maximum(1, np.linalg.norm(z, axis=1, keepdims=True))


def images(kind: str, size: int) -> np.ndarray:
    """Vectors of norm at most 1, random and adversarial."""
    rng = np.random.default_rng(0)
    return {
        "random": clipped(rng.normal(size=(50, size))),
        "one direction": np.eye(size),
        "all directions": np.full((1, size), size**-0.5),
        "short": 1e-9 * rng.normal(size=(5, size)),
        "of norm 1": (x := rng.normal(size=(50, size))) / np.linalg.norm(x, axis=1, keepdims=True),
    }[kind]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("size", [1, 2, 7, 85])
@pytest.mark.parametrize("kind", ["random", "one direction", "all directions", "short", "of norm 1"])
def test_one_image_changes_the_sums_of_all_groups_by_at_most_1(weights, size, kind):
    groups = 3
    for i, z in enumerate(images(kind, size)):
        change = weighted_sums(z[None], np.array([i % groups]), groups, weights)
        assert np.linalg.norm(change) <= 1
        assert (change[[g for g in range(groups) if g != i % groups]] == 0).all()


@pytest.mark.parametrize("size", [1, 7, 85])
@pytest.mark.parametrize("kind", ["random", "one direction", "all directions", "short", "of norm 1"])
def test_one_image_changes_the_sums_of_the_location_by_at_most_1(size, kind):
    z = images(kind, size)
    for i in range(len(z)):
        change = location_sums(z[i : i + 1])
        assert np.linalg.norm(change) <= 1
        np.testing.assert_allclose(location_sums(z) - location_sums(np.delete(z, i, 0)), change, atol=1e-12)


def test_without_noise_the_location_is_the_mean_and_the_root_of_the_mean_squared_distance():
    z = clipped(0.1 + 0.1 * np.random.default_rng(3).normal(size=(500, 6)))
    mean, radius = location(location_sums(z), 500, 0.0)
    np.testing.assert_allclose(mean, z.mean(0), atol=1e-9)
    assert radius == pytest.approx(np.sqrt(((z - z.mean(0)) ** 2).sum(1).mean()))


def test_with_noise_the_radius_is_seldom_too_small_and_pure_noise_moves_nothing():
    rng, z = np.random.default_rng(4), clipped(0.3 + 0.1 * np.random.default_rng(3).normal(size=(500, 6)))
    true, sigma = np.sqrt(((z - z.mean(0)) ** 2).sum(1).mean()), 5.0
    found = [location(location_sums(z) + sigma * rng.normal(size=7), 500, sigma)[1] for _ in range(400)]
    assert np.mean(np.array(found) < true) < 0.06
    assert np.median(found) < 1.5 * true
    mean, _ = location(1e9 * rng.normal(size=7), 500, 1e9)
    assert np.isfinite(mean).all()


@pytest.mark.parametrize("kind", ["of norm 1", "random"])
def test_to_add_an_image_to_others_changes_them_by_what_it_gives_alone(kind):
    z = images(kind, 5)
    groups = np.arange(len(z)) % 2
    without = weighted_sums(z[1:], groups[1:], 2, WEIGHTS[0])
    change = weighted_sums(z, groups, 2, WEIGHTS[0]) - without
    np.testing.assert_allclose(change, weighted_sums(z[:1], groups[:1], 2, WEIGHTS[0]), atol=1e-12)
    assert np.linalg.norm(change) <= 1


def test_the_bound_is_reached():
    """So the noise is not larger than it has to be."""
    z = np.eye(4)[:1]
    assert np.linalg.norm(weighted_sums(z, np.zeros(1, int), 1, WEIGHTS[0])) == pytest.approx(1, abs=1e-8)


@given(st.integers(1, 6), st.integers(0, 100))
def test_svec_keeps_norms_and_smat_undoes_it(size, seed):
    x = np.random.default_rng(seed).normal(size=(size, size))
    matrix = x + x.T
    assert np.linalg.norm(svec(matrix)) == pytest.approx(np.linalg.norm(matrix))
    np.testing.assert_allclose(smat(svec(matrix), size), matrix)


@pytest.mark.parametrize("weights", WEIGHTS[:1] + WEIGHTS[3:])
def test_without_noise_the_sums_are_numpys_moments(weights):
    z, groups = clipped(np.random.default_rng(1).normal(size=(200, 6))), np.arange(200) % 4
    sums = unweighted(weighted_sums(z, groups, 4, weights), 6, weights, sigma=0.0)
    for group in range(4):
        mine = z[groups == group]
        assert sums.counts[group] == pytest.approx(len(mine))
        np.testing.assert_allclose(sums.means[group] / len(mine), mine.mean(0), atol=1e-12)
        np.testing.assert_allclose(smat(sums.squares[group], 6) / len(mine), mine.T @ mine / len(mine), atol=1e-12)


def test_the_noise_of_each_part_has_the_stated_variance():
    weights, sigma, size, groups = Weights.of(0.2, 0.6, 0.8), 3.0, 20, 60
    noise = sigma * np.random.default_rng(2).normal(size=(groups, 1 + size + size * (size + 1) // 2))
    sums = unweighted(noise, size, weights, sigma)
    assert sums.counts.std() == pytest.approx(sums.count_noise(), rel=0.3)
    assert sums.means.std() == pytest.approx(sigma / weights.mean, rel=0.05)
    matrices = smat(sums.squares, size)
    diagonal = np.einsum("gii->gi", matrices)
    off = matrices[:, *np.triu_indices(size, 1)]
    assert diagonal.std() == pytest.approx(sigma / weights.square, rel=0.05)
    assert off.std() == pytest.approx(sigma / weights.square / 2**0.5, rel=0.05)


def test_epsilon_of_the_examples_in_closed_form():
    """The exact Gaussian mechanism, of Balle & Wang (2018): what one spend of the moments costs."""
    assert gaussian_epsilon(3.730632, 1e-5) == pytest.approx(1.0, abs=1e-4)  # σ of ε = 1 at δ = 1e-5
