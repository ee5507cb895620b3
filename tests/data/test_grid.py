"""The picture of samples: rows are classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.grid import LONGEST_NAME, Block, save_grid, tiled
from data.samples import SampleSet


def picture(samples: SampleSet, path, **settings: Any) -> np.ndarray:
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


# Names, titles, captions


@pytest.mark.parametrize("channels", [1, 3])
def test_names_stand_left_of_their_rows_and_the_images_are_as_without(channels, tmp_path):
    samples = flat([0, 1, 2, 2], channels)
    plain = picture(samples, tmp_path / "plain.png").reshape(104, -1, channels)
    named = picture(samples, tmp_path / "named.png", classes=["0", "", "a long name"]).reshape(104, -1, channels)
    margin = named.shape[1] - plain.shape[1]
    assert margin > 0
    assert np.array_equal(named[:, margin:], plain)
    ink = named[:, :margin].min((1, 2)) < 128
    assert [ink[2 + 34 * row : 34 * (row + 1)].any() for row in range(3)] == [True, False, True]


def test_a_very_long_name_is_cut(tmp_path):
    widths = {
        picture(flat([0, 1]), tmp_path / "grid.png", classes=["m" * length, "b"]).shape[1]
        for length in (LONGEST_NAME + 1, LONGEST_NAME + 50)
    }
    assert len(widths) == 1


def test_a_set_of_one_class_has_no_names(tmp_path):
    samples = flat([0] * 5)
    assert np.array_equal(
        picture(samples, tmp_path / "a.png", columns=2), picture(samples, tmp_path / "b.png", columns=2, classes=["only"])
    )


def test_blocks_stand_side_by_side_under_their_titles_and_a_caption_stays_inside():
    images = flat([0] * 3).images
    one, two = Block([images[:1]], "a title that is wider than its block"), Block([images[1:]], "b")
    told = "a caption of many words that does not fit into one line of such a small picture, so that it takes several"
    pixels = np.asarray(tiled([one, two], caption=told))
    columns = [np.flatnonzero((pixels == grey).any(0)) for grey in (10, 20, 30)]
    # anti-aliased letters have every grey level, but 32 × 32 squares have whole columns of one
    squares = [[x for x in columns[i] if (pixels[:, x] == grey).sum() >= 32] for i, grey in enumerate((10, 20, 30))]
    assert [len(square) for square in squares] == [32, 32, 32]
    assert max(squares[0]) + 34 < min(squares[1]) < max(squares[1]) < min(squares[2])
    assert (pixels[:, -1] == 255).all()
    assert (pixels[-1] == 255).all()
