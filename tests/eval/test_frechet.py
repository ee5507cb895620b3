"""The Fréchet distance where its value is known, and against a matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from eval.frechet import frechet_distance

RNG = np.random.default_rng(0)
A = (RNG.normal(size=(300, 6)) @ RNG.normal(size=(6, 6))).astype(np.float32)
B = (RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)) + RNG.normal(size=6)).astype(np.float32)


def test_sets_of_equal_covariance_are_their_squared_mean_difference_apart():
    shift = np.array([1.0, -2.0, 0.0, 0.5, 3.0, 0.25])
    assert frechet_distance(A.astype(np.float64), A + shift) == pytest.approx(np.square(shift).sum(), rel=1e-9)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (2.5, 0.0), (0.5, -3.0)])
def test_in_one_dimension_it_is_the_difference_of_means_and_of_deviations(scale, shift):
    a = RNG.normal(1.0, 2.0, (500, 1))
    b = scale * a + shift
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("features", [A, A[:4]], ids=["full rank", "fewer images than features"])
def test_a_set_is_no_distance_from_itself_in_any_order(features):
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-6)


def test_it_is_the_formula_with_a_matrix_square_root():
    a, b = A.astype(np.float64), B.astype(np.float64)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(A, B) == pytest.approx(expected, rel=1e-9)


def test_it_is_symmetric_and_blind_to_rotations():
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    distance = frechet_distance(A, B)
    assert frechet_distance(B, A) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(A @ rotation, B @ rotation) == pytest.approx(distance, rel=1e-6)
