"""Nearest neighbours: exact, the same for every backend and block size, ties to the lowest index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pe import neighbours
from pe.neighbours import NeighbourBackend, nearest

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
    monkeypatch.setattr(neighbours, "BLOCK", block)
    assert np.array_equal(nearest(queries, points), whole)
