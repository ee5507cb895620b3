"""The watermark: readable without knowing where it is, and in every piece that is worth keeping."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eval.watermark import save_private, watermarked

SIZES = [(40, 40), (272, 700), (900, 500)]


def reddish(pixels: np.ndarray) -> np.ndarray:
    """Where a grey picture has become red."""
    return (pixels[..., 0].astype(int) - pixels[..., 1]) > 40


@pytest.mark.parametrize(("size", "grey"), [*((size, 0) for size in SIZES), (SIZES[0], 128), (SIZES[0], 255)])
def test_every_piece_of_a_picture_has_some_of_the_mark(size, grey):
    """A piece: a third of the width and of the height, anywhere, or all of a small picture."""
    marked = np.asarray(watermarked(Image.new("L", size, grey)))
    height, width = (max(110, side // 3) for side in marked.shape[:2])
    below = marked[26:]  # the line above is easily cut off
    for y in range(0, max(1, below.shape[0] - height + 1), 20):
        for x in range(0, max(1, width if width >= below.shape[1] else below.shape[1] - width + 1), 20):
            assert reddish(below[y : y + height, x : x + width]).sum() > 50


@pytest.mark.parametrize("size", SIZES)
def test_the_line_above_fits_and_nothing_of_the_picture_is_lost(size):
    marked = np.asarray(watermarked(Image.new("L", size, 7)))
    assert reddish(marked[0]).all()
    assert ((marked == 255).all(-1)[:20].any(0)).any()  # letters
    assert (marked == 7).all(-1).sum() > 0.5 * size[0] * size[1]  # most of it stays as it was


def test_it_is_written_as_png(tmp_path):
    save_private(Image.new("RGB", (50, 50), "blue"), tmp_path / "one.png")
    assert reddish(np.asarray(Image.open(tmp_path / "one.png"))).any()
