"""The picture of samples: rows are classes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.grid import save_grid
from data.samples import SampleSet


def picture(samples: SampleSet, path, **settings: int) -> np.ndarray:
    save_grid(samples, path, **settings)
    return np.asarray(Image.open(path))


def flat(labels: list[int], channels: int = 1, side: int = 32) -> SampleSet:
    """Image i is grey level 10 (i + 1) everywhere."""
    images = np.arange(10, 10 * len(labels) + 1, 10, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (len(labels), side, side, channels)).copy()
    return SampleSet(images, np.array(labels, np.int64), max(labels) + 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_class_has_its_row_in_the_order_of_its_images(channels, tmp_path):
    grid = picture(flat([1, 0, 1, 1, 0], channels), tmp_path / "grid.png", columns=2)
    cells = grid.reshape(*grid.shape[:2], channels)[18::34, 18::34, 0]
    assert cells.tolist() == [[20, 50], [10, 30]]


def test_small_images_are_enlarged_by_a_whole_factor_unsmoothed(tmp_path):
    grid = picture(flat([0, 1], side=8), tmp_path / "grid.png", columns=1)
    assert grid.shape == (4 * (2 * 9 + 1), 4 * 10)
    assert set(np.unique(grid)) == {10, 20, 255}
    assert (grid == 10).sum() == (4 * 8) ** 2


def test_one_class_fills_several_rows(tmp_path):
    grid = picture(flat([0] * 5), tmp_path / "grid.png", columns=2)
    assert grid[18::34, 18::34].tolist() == [[10, 20], [30, 40], [50, 255]]


def test_no_more_rows_and_columns_than_asked_for(tmp_path):
    grid = picture(flat([0, 0, 0, 1, 2]), tmp_path / "grid.png", columns=2, max_rows=2)
    assert grid[18::34, 18::34].tolist() == [[10, 20], [40, 255]]
