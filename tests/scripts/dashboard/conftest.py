"""A study of fake runs, and the page made of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.scripts.dashboard.fake_runs import fake_run


@pytest.fixture
def study(here: Path) -> Path:
    """Three methods on the digits: pe at two ε and two seeds, a floor, and a ceiling whose pictures are private."""
    for seed in (0, 1):
        for epsilon, accuracy in ((1.0, 0.7), (10.0, 0.8)):
            fake_run(
                here / "runs" / "pe" / f"{epsilon:g}-{seed}", "pe", epsilon=epsilon, seed=seed, accuracy=accuracy + seed / 50
            )
    fake_run(here / "runs" / "floor", "public_only", epsilon=0.0, accuracy=0.6, distance=80.0)
    fake_run(here / "runs" / "ceiling", "real_data", epsilon=math.inf, accuracy=0.99, distance=0.0, private=False, colour=5)
    return here
