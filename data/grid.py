"""Pictures of images in rows: one row for each class, named at its left, in one block or in several side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.samples import SampleSet

MAX_ROWS = 20
LONGEST_NAME = 20  # letters


@dataclass
class Block:
    """Rows of uint8 images [n, H, W, C] under a title."""

    rows: Sequence[np.ndarray]
    title: str = ""


def save_grid(
    samples: SampleSet, path: Path, columns: int = 20, max_rows: int = MAX_ROWS, classes: Sequence[str] | None = None
) -> None:
    """The first `columns` images of each class, rows = `classes`; small images are enlarged by whole factors, unsmoothed.

    A set of one class fills several rows, without names.
    """
    labels = present(samples.labels)[:max_rows]
    groups = [np.flatnonzero(samples.labels == label) for label in labels]
    names = [classes[label] for label in labels] if classes and len(groups) > 1 else []
    if len(groups) == 1:
        groups = [groups[0][i : i + columns] for i in range(0, min(len(groups[0]), 10 * columns), columns)]
    tiled([Block([samples.images[rows[:columns]] for rows in groups])], names).save(path)


def present(labels: np.ndarray) -> np.ndarray:
    """The classes that have a row, ascending."""
    return np.unique(labels)[:MAX_ROWS]


def tiled(blocks: Sequence[Block], names: Sequence[str] = (), caption: str = "") -> Image.Image:
    """One picture of blocks with equally many rows; `names` stand before the rows, `caption` below, wrapped to the width."""
    height, width, channels = next(row for block in blocks for row in block.rows if len(row)).shape[1:]
    pad, factor = max(1, height // 16), max(1, 32 // height)
    font = label_font(max(12, (height + pad) * factor // 10))
    line = sum(font.getmetrics()) + 2
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    margin = max((int(font.getlength(name)) for name in names), default=-line) + line
    top = line if any(block.title for block in blocks) else 0
    grids = [Image.fromarray(_canvas(block, (height, width, channels), pad)) for block in blocks]
    grids = [grid.resize((grid.width * factor, grid.height * factor), Image.Resampling.NEAREST) for grid in grids]
    room = [max(grid.width, int(font.getlength(b.title)) + pad * factor) for grid, b in zip(grids, blocks, strict=True)]
    across = margin + sum(room) + line * (len(blocks) - 1)
    told = textwrap.wrap(caption, max(20, int(across / font.getlength("n"))))
    bottom = line * len(told) + (line // 2 if told else 0)
    across = max([across, *(int(font.getlength(words)) + 2 * pad * factor for words in told)])

    picture = Image.new(grids[0].mode, (across, top + grids[0].height + bottom), "white")
    draw, x, first = ImageDraw.Draw(picture), margin, pad * factor
    for grid, block, wide in zip(grids, blocks, room, strict=True):
        draw.text((x + first, 1), block.title, "black", font)
        picture.paste(grid, (x, top))
        x += wide + line
    for r, name in enumerate(names):
        y = top + first + (r * (height + pad) + height / 2) * factor
        draw.text((margin - line / 2, y), name, "black", font, anchor="rm")
    for i, words in enumerate(told):
        draw.text((first, top + grids[0].height + line // 4 + i * line), words, "black", font)
    return picture


def label_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _canvas(block: Block, shape: tuple[int, int, int], pad: int) -> np.ndarray:
    height, width, channels = shape
    size = len(block.rows) * (height + pad) + pad, max(map(len, block.rows)) * (width + pad) + pad
    canvas = np.full((*size, channels), 255, np.uint8)
    for r, images in enumerate(block.rows):
        for c, image in enumerate(images):
            y, x = pad + r * (height + pad), pad + c * (width + pad)
            canvas[y : y + height, x : x + width] = image
    return canvas[..., 0] if channels == 1 else canvas
