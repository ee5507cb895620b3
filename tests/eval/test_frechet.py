"""The Fréchet distance where its value is known, and against a matrix square root."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from pytorch_fid import fid_score
from scipy.linalg import sqrtm

from eval import frechet
from eval.frechet import Gaussian, fit_gaussian, frechet_distance, gaussian_distance
from tests.command import ROOT

RNG = np.random.default_rng(0)
DEVIATIONS = np.array([[1.0, 2.0, 3.0, 0.0, 5.0], [2.0, 2.0, 0.5, 1.0, 0.0]])
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


@pytest.mark.parametrize("dim", [1, 6, 40])
def test_it_is_pytorch_fids(monkeypatch, dim):
    monkeypatch.setattr(fid_score.linalg, "sqrtm", lambda a, disp: (sqrtm(a), None))  # the pair that SciPy no longer gives
    rng = np.random.default_rng(dim)
    a = (rng.normal(size=(300, dim)) @ rng.normal(size=(dim, dim))).astype(np.float32)
    b = (rng.normal(size=(200, dim)) @ rng.normal(size=(dim, dim)) + 1).astype(np.float32)
    expected = fid_score.calculate_frechet_distance(*(part for z in (a, b) for part in (z.mean(0, np.float64), np.cov(z.T))))
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_between_gaussians_whose_covariances_commute_it_has_a_closed_form(seed):
    """A variance of zero comes back as rounding of the largest, 25, and its root counts twice: so near is near enough."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    a, b = (Gaussian(9, rng.normal(size=5), (basis * np.square(deviations)) @ basis.T) for deviations in DEVIATIONS)
    expected = np.square(a.mean - b.mean).sum() + np.square(DEVIATIONS[0] - DEVIATIONS[1]).sum()
    rounding = 2 * len(basis) * np.sqrt(25 * np.finfo(float).eps)
    assert gaussian_distance(a, b) == pytest.approx(expected, rel=0, abs=rounding)


@pytest.mark.parametrize("values", [1, 25, 1 << 23], ids=lambda values: f"{values} values at once")
def test_a_gaussian_is_the_mean_and_covariance_of_its_rows_in_blocks_of_any_size(monkeypatch, values):
    monkeypatch.setattr(frechet, "VALUES", values)
    rows = np.array([3, 0, 17, 40, 41, 99])
    for fitted, features in ((fit_gaussian(A), A), (fit_gaussian(A, rows), A[rows])):
        assert fitted.count == len(features)
        assert fitted.mean == pytest.approx(features.mean(0, np.float64), rel=1e-12)
        assert fitted.covariance == pytest.approx(np.cov(features.T.astype(np.float64)), rel=1e-9)


def test_a_common_offset_costs_no_digits():
    far = np.round(A, 2) + np.float32(2**14)
    assert fit_gaussian(far).covariance == pytest.approx(np.cov((far - np.float32(2**14)).T.astype(np.float64)), rel=1e-9)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="2 or more images, not 1"):
        fit_gaussian(A[:1])


MEASURE = """
import resource
import numpy as np
from eval.frechet import frechet_distance

rng = np.random.default_rng(0)
a, b = (rng.standard_normal((50_000, 2048), np.float32) for _ in range(2))
frechet_distance(a, b)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_fifty_thousand_images_in_inceptions_space_take_two_gib_at_most():
    command, one_thread = [sys.executable, "-c", MEASURE], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2


def test_a_distance_decomposes_two_symmetric_matrices_of_the_features_size_and_nothing_else(monkeypatch):
    """Each takes D³ operations, however many images there are; a general matrix square root takes tens of times as many."""
    decomposed = []
    for name in ("cholesky", "eig", "eigh", "eigvals", "eigvalsh", "inv", "qr", "svd"):
        original = getattr(np.linalg, name)

        def counted(matrix, *rest, name=name, original=original, **settings):
            decomposed.append((name, matrix.shape))
            return original(matrix, *rest, **settings)

        monkeypatch.setattr(np.linalg, name, counted)
    frechet_distance(A, B)
    assert decomposed == [("eigh", (6, 6)), ("eigvalsh", (6, 6))]
