"""Nearest neighbours: exact, the same for every backend and block size, ties to the lowest index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models import neighbours
from models.neighbours import NeighbourBackend, distance_blocks, k_nearest, nearest

backends = pytest.mark.parametrize("backend", list(NeighbourBackend))


def grid_points(least: int):
    """Points with small whole coordinates: their distances are exact in float32, and often equal."""
    whole = st.integers(-3, 3).map(float)
    return st.integers(least, 12).flatmap(lambda n: arrays(np.float32, (n, 2), elements=whole))


def squared_distances(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.square(queries[:, None].astype(float) - points[None].astype(float)).sum(-1)


@backends
@settings(max_examples=60, deadline=None)
@given(queries=grid_points(0), points=grid_points(1))
def test_the_nearest_point_is_found_and_ties_go_to_the_lowest_index(backend, queries, points):
    found = nearest(queries, points, backend)
    assert found.dtype == np.int64
    assert np.array_equal(found, squared_distances(queries, points).argmin(1))


@backends
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_real_valued_points_agree_with_distances_in_float64(backend, dim):
    rng = np.random.default_rng(dim)
    queries, points = rng.normal(size=(300, dim)).astype(np.float32), rng.normal(size=(77, dim)).astype(np.float32)
    assert np.array_equal(nearest(queries, points, backend), squared_distances(queries, points).argmin(1))


@backends
def test_a_common_offset_changes_no_neighbour(backend):
    rng = np.random.default_rng(0)
    queries, points = rng.normal(50, 1, (200, 64)).astype(np.float32), rng.normal(50, 1, (100, 64)).astype(np.float32)
    assert np.array_equal(nearest(queries, points, backend), squared_distances(queries, points).argmin(1))


@backends
@pytest.mark.parametrize("copies", [2, 5, 17])
def test_of_equal_points_the_first_is_found(backend, copies):
    rng = np.random.default_rng(1)
    points, queries = rng.normal(size=(13, 64)).astype(np.float32), rng.normal(size=(200, 64)).astype(np.float32)
    once = nearest(queries, points, backend)
    assert np.array_equal(nearest(queries, np.tile(points, (copies, 1)), backend), once)


@pytest.mark.parametrize("block", [1, 40, 41, 1000, 1 << 24])
def test_blocks_of_any_size_find_the_same(monkeypatch, block):
    rng = np.random.default_rng(2)
    queries, points = rng.normal(size=(101, 8)).astype(np.float32), rng.normal(size=(40, 8)).astype(np.float32)
    whole = squared_distances(queries, points).argmin(1)
    monkeypatch.setattr(neighbours, "BLOCK", {"cpu": block})
    assert np.array_equal(nearest(queries, points), whole)


@pytest.mark.parametrize("dim", [1, 3, 64, 2048])
@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-7, 0.0])
def test_points_that_float32_cannot_tell_apart_are_told_apart_in_float64(dim, gap):
    """Each query has several points at nearly the same distance, far from the origin."""
    rng = np.random.default_rng(dim)
    around = rng.normal(7, 1, (20, dim)).astype(np.float32)
    points = np.concatenate([around, around + gap * rng.normal(size=(20, dim)), around]).astype(np.float32)
    queries = (around + rng.normal(size=(20, dim))).astype(np.float32)
    assert np.array_equal(nearest(queries, points), squared_distances(queries, points).argmin(1))
    one_by_one = [nearest(query[None], points)[0] for query in queries]
    assert np.array_equal(nearest(queries, points), one_by_one)  # other kernels for other shapes


@pytest.mark.parametrize("scale", [1e-22, 1e-21, 1e-18])
def test_products_that_are_no_normal_numbers_of_float32_are_told_apart_too(scale):
    rng = np.random.default_rng(3)
    queries, points = ((scale * rng.normal(size=(count, 8))).astype(np.float32) for count in (2000, 50))
    assert np.array_equal(nearest(queries, points), squared_distances(queries, points).argmin(1))


def test_one_point_that_is_far_longer_sends_no_other_to_float64(monkeypatch):
    rng = np.random.default_rng(4)
    queries, points = rng.normal(size=(200, 64)).astype(np.float32), rng.normal(size=(300, 64)).astype(np.float32)
    points[7] *= 1e5
    pairs, exactly = [], neighbours._nearest_of

    def counted(*args: np.ndarray) -> np.ndarray:
        pairs.append(len(args[2]))
        return exactly(*args)

    monkeypatch.setattr(neighbours, "_nearest_of", counted)
    assert np.array_equal(nearest(queries, points), squared_distances(queries, points).argmin(1))
    assert sum(pairs) < 20 * len(queries)  # of 300 each


def test_a_device_that_rounds_more_finds_the_same(monkeypatch):
    """Products of another order, as on a GPU: each rounded anew, up to the bound that is allowed for."""
    rng = np.random.default_rng(7)
    points = np.repeat(rng.normal(size=(50, 32)), 4, 0) + 1e-6 * rng.normal(size=(200, 32))
    queries, points = rng.normal(size=(300, 32)).astype(np.float32), points.astype(np.float32)
    whole, product = nearest(queries, points), torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        exact = product(a, b)
        bound = 32 * 2.0**-24 * a.norm(dim=1)[:, None] * b.norm(dim=0)
        return exact + bound * (2 * torch.rand(exact.shape) - 1)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert np.array_equal(nearest(queries, points), whole)


@backends
@pytest.mark.parametrize("harm", [np.nan, np.inf, -np.inf, 1e30, 3e38])
def test_what_has_no_length_is_nearest_to_nothing_and_changes_nothing_else(backend, harm):
    rng = np.random.default_rng(6)
    queries, points = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    whole, rest = nearest(queries, points, backend), nearest(queries, np.delete(points, 4, 0), backend)
    queries[[0, 7, 39], 2] = harm
    able = np.ones(40, bool)
    able[[0, 7, 39]] = False
    found = nearest(queries, points, backend)
    assert (found[~able] == -1).all()
    assert np.array_equal(found[able], whole[able])
    points[4] = harm
    assert np.array_equal(nearest(queries, points, backend), np.where(able, rest + (rest >= 4), -1))
    points[:] = harm
    assert (nearest(queries, points, backend) == -1).all()
    assert (nearest(np.full_like(queries, harm), rng.normal(size=(9, 5)).astype(np.float32), backend) == -1).all()


@settings(max_examples=60, deadline=None)
@given(queries=grid_points(0), points=grid_points(1), data=st.data())
def test_the_k_nearest_are_the_k_smallest_distances_and_each_point_is_named_once(queries, points, data):
    k = data.draw(st.integers(1, len(points)))
    distances, indices = k_nearest(queries, points, k)
    assert (distances.dtype, indices.dtype, distances.shape) == (np.float32, np.int64, (len(queries), k))
    every = np.sqrt(squared_distances(queries, points))
    assert np.array_equal(distances, np.sort(every, 1)[:, :k].astype(np.float32))
    assert np.array_equal(distances, np.take_along_axis(every, indices, 1).astype(np.float32))
    assert all(len(set(row)) == k for row in indices)


@pytest.mark.parametrize("values", [1, 30, 64, 1 << 23], ids=lambda values: f"{values} values at once")
def test_k_nearest_of_real_valued_points_agree_with_a_full_sort_in_blocks_of_any_size(monkeypatch, values):
    rng = np.random.default_rng(3)
    queries, points = rng.normal(9, 1, (23, 8)).astype(np.float32), rng.normal(9, 1, (41, 8)).astype(np.float32)
    monkeypatch.setattr(neighbours, "VALUES", values)
    distances, indices = k_nearest(queries, points, 7)
    every = squared_distances(queries, points)
    assert np.array_equal(indices, np.argsort(every, 1, kind="stable")[:, :7])
    assert distances == pytest.approx(np.sqrt(np.sort(every, 1)[:, :7]), rel=1e-6)
    assert np.array_equal(k_nearest(queries[5:6], points, 7)[0], distances[5:6])


def test_a_copy_is_at_distance_zero_however_far_from_the_origin():
    points = np.random.default_rng(4).normal(1e4, 1, (60, 32)).astype(np.float32)
    distances, indices = k_nearest(points, points, 2)
    assert np.array_equal(indices[:, 0], np.arange(60))
    assert (distances[:, 0] == 0).all()
    assert (distances[:, 1] > 1).all()


def test_blocks_cover_every_pair_once(monkeypatch):
    rng = np.random.default_rng(5)
    queries, points = rng.normal(size=(11, 4)).astype(np.float32), rng.normal(size=(13, 4)).astype(np.float32)
    monkeypatch.setattr(neighbours, "VALUES", 20)
    pairs = np.zeros((11, 13))
    for rows, columns, squared in distance_blocks(queries, points):
        pairs[rows, columns] += squared.numpy()
    assert pairs == pytest.approx(squared_distances(queries, points))


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_points_are_refused(k):
    with pytest.raises(ValueError, match=f"k={k}: .* 3"):
        k_nearest(np.zeros((1, 2), np.float32), np.zeros((3, 2), np.float32), k)
