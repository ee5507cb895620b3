"""Passes: how many rows one may have."""

from __future__ import annotations

import pytest
import torch

from models.passes import rows_that_fit


@pytest.mark.parametrize(("limit", "expected"), [(64, 64), (100, 64), (300, 256), (5000, 4096), (10**9, 4096)])
def test_rows_double_until_memory_or_the_limit_is_reached(limit, expected):
    tried = []

    def attempt(rows: int) -> None:
        tried.append(rows)
        if rows > limit:
            raise torch.OutOfMemoryError

    assert rows_that_fit(attempt, 64) == expected
    assert max(tried) <= 4096
    assert len(tried) == len(set(tried))


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def attempt(rows: int) -> None:
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        rows_that_fit(attempt, 64)
