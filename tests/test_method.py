"""How many samples each class gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from method import apportion

weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None)
@given(weights=weights, extra=st.integers(0, 10**5))
def test_shares_are_whole_sum_to_the_total_and_leave_no_class_out(weights, extra):
    total = len(weights) + extra
    shares = apportion(weights, total)
    assert shares.dtype == np.int64
    assert shares.sum() == total
    assert shares.min() >= 1


@settings(max_examples=200, deadline=None)
@given(weights=weights, extra=st.integers(0, 10**5))
def test_a_larger_class_never_gets_fewer(weights, extra):
    shares = apportion(weights, len(weights) + extra)
    order = np.argsort(weights, kind="stable")
    distinct = np.diff(np.asarray(weights)[order]) > 0
    assert (np.diff(shares[order])[distinct] >= 0).all()


@settings(max_examples=100, deadline=None)
@given(weights=weights, extra=st.integers(0, 10**5))
def test_the_scale_of_the_weights_does_not_matter(weights, extra):
    total = len(weights) + extra
    assert np.array_equal(apportion(weights, total), apportion(1024 * np.asarray(weights), total))


@pytest.mark.parametrize(
    ("weights", "total", "shares"),
    [([5, 5], 10, [5, 5]), ([0, 0, 0], 7, [3, 2, 2]), ([1, 0], 10, [9, 1]), ([3, 3, 3], 3, [1, 1, 1]), ([7], 4, [4])],
)
def test_known_shares(weights, total, shares):
    assert apportion(weights, total).tolist() == shares


@pytest.mark.parametrize(("weights", "total"), [([90, 10], 100), ([45, 5], 100), ([600, 300, 100], 1000)])
def test_shares_that_can_be_exactly_proportional_are(weights, total):
    assert apportion(weights, total).tolist() == [weight * total // sum(weights) for weight in weights]
