"""Precision, recall, density, coverage: as `prdc` has them, and where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from prdc import compute_prdc

from eval.manifold import coverage_of_balls
from models import neighbours

RNG = np.random.default_rng(0)
REAL, SAMPLES = RNG.normal(size=(150, 6)).astype(np.float32), RNG.normal(0.5, 0.8, (110, 6)).astype(np.float32)


@pytest.mark.parametrize("values", [100, 1 << 23], ids=lambda values: f"{values} values at once")
@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_are_those_of_prdc_in_blocks_of_any_size(monkeypatch, k, values):
    monkeypatch.setattr(neighbours, "VALUES", values)
    expected = compute_prdc(REAL, SAMPLES, k)
    assert coverage_of_balls(REAL, SAMPLES, k) == pytest.approx(expected, rel=1e-6)
    assert 0 < expected["precision"] < 1


def test_sets_far_apart_share_nothing():
    assert set(coverage_of_balls(REAL, SAMPLES + 100, 5).values()) == {0.0}


@pytest.mark.parametrize("k", [1, 5])
def test_copies_are_in_balls_that_they_do_not_leave(k):
    assert coverage_of_balls(REAL, REAL.copy(), k) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


def test_samples_of_one_mode_are_precise_and_cover_one_half():
    far = REAL + np.float32(100)
    found = coverage_of_balls(np.concatenate([REAL, far]), REAL.copy(), 5)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 0.5, 0.5)
