"""Pictures of samples: a grid with one row for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data.samples import SampleSet


def save_grid(samples: SampleSet, path: Path, columns: int = 20, max_rows: int = 20) -> None:
    """The first `columns` images of each class, rows = classes; small images are enlarged by whole factors, unsmoothed.

    A set of one class fills several rows.
    """
    height, width, channels = samples.images.shape[1:]
    pad = max(1, height // 16)
    groups = [np.flatnonzero(samples.labels == label) for label in np.unique(samples.labels)[:max_rows]]
    if len(groups) == 1:
        groups = [groups[0][i : i + columns] for i in range(0, min(len(groups[0]), 10 * columns), columns)]
    canvas = np.full((len(groups) * (height + pad) + pad, columns * (width + pad) + pad, channels), 255, np.uint8)
    for r, rows in enumerate(groups):
        for c, image in enumerate(samples.images[rows[:columns]]):
            y, x = pad + r * (height + pad), pad + c * (width + pad)
            canvas[y : y + height, x : x + width] = image
    factor = max(1, 32 // height)
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    picture.resize((canvas.shape[1] * factor, canvas.shape[0] * factor), Image.Resampling.NEAREST).save(path)
