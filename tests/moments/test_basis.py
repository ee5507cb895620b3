from __future__ import annotations

import numpy as np
import pytest

from moments.basis import DCT, PrincipalComponents, largest_norm, principal_components


def some(shape: tuple[int, int, int], count: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


def bases(shape: tuple[int, int, int]) -> list:
    images = some(shape, 300)
    mean, size = images.mean(0) / 255, int(np.prod(shape))
    return [
        DCT(np.full(shape, 0.5), size),
        DCT(np.full(shape, 0.1), max(4, size // 3)),
        PrincipalComponents(mean, principal_components(images, 12)),
        PrincipalComponents(mean, principal_components(images, size)),
    ]


SHAPES = [(8, 8, 1), (5, 7, 1), (6, 6, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_are_orthonormal_so_no_vector_is_longer_than_its_image(shape):
    for basis in bases(shape):
        z = np.eye(basis.size)
        pixels = basis.pixels(z).reshape(basis.size, -1)
        np.testing.assert_allclose(pixels @ pixels.T, np.eye(basis.size), atol=1e-9)
        np.testing.assert_allclose(basis.coefficients(basis.pixels(z)), z, atol=1e-9)
        images = some(shape)
        long = np.linalg.norm((images / 255 - basis.offset).reshape(len(images), -1), axis=1)
        assert (np.linalg.norm(basis.to_vectors(images), axis=1) <= long + 1e-9).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_basis_gives_every_image_back(shape):
    images = some(shape)
    for basis in (bases(shape)[0], bases(shape)[3]):
        np.testing.assert_array_equal(basis.to_images(basis.to_vectors(images)), images)


def test_the_first_frequency_is_the_brightness_of_all_colours():
    white, grey = np.full((1, 8, 8, 3), 255, np.uint8), np.full((1, 8, 8, 3), 128, np.uint8)
    basis = DCT(np.full((8, 8, 3), 128 / 255), 10)
    z = basis.to_vectors(np.concatenate([white, grey]))
    assert np.abs(z[0, 1:]).max() < 1e-9 < z[0, 0]
    np.testing.assert_allclose(z[1], 0, atol=1e-9)


def test_no_image_is_further_from_mid_grey_than_the_largest_norm():
    shape = (8, 8, 3)
    basis = DCT(np.full(shape, 0.5), int(np.prod(shape)))
    extreme = np.where(some(shape) > 127, 255, 0).astype(np.uint8)
    assert np.linalg.norm(basis.to_vectors(extreme), axis=1) == pytest.approx(largest_norm(shape))


def test_principal_components_come_by_variance_and_no_more_than_there_are():
    images = some((4, 4, 1), 6)
    vectors = principal_components(images, 100)
    assert len(vectors) == 6
    spread = ((images.reshape(6, -1) / 255 - images.reshape(6, -1).mean(0) / 255) @ vectors.T).var(0)
    assert (np.diff(spread) <= 1e-9).all()
