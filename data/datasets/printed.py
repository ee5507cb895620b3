"""Printed digits, the public counterpart of handwritten ones: rendered, so there is nothing to download.

Digits of the DejaVu fonts that matplotlib ships, under random affine maps and smooth bends, cropped to the glyph and
box-filtered to the size and margin of the handwritten ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from PIL import Image, ImageDraw, ImageFont

from data.dataset import ClassCounts, Dataset
from data.samples import SampleSet

NUM_PRINTED = 300_000
SOME = 20_000
_SEED = 0  # fixed: they are a dataset
_MARGINS = {8: 0, 28: 4}  # as scikit-learn's digits and MNIST have them


def printed(num_images: int = NUM_PRINTED, seed: int = _SEED, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Printed digits: uint8 [N, size, size, 1] and int64 [N], classes in equal numbers up to one; `size` is 8 or 28."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % 10)
    fonts = rng.integers(num_fonts(), size=num_images)
    angle, shear = rng.normal(0, 10, num_images), rng.normal(0, 0.25, num_images)
    width = np.exp(rng.normal(0, 0.25, num_images))
    parts = [slice(start, min(start + 2048, num_images)) for start in range(0, num_images, 2048)]
    bends = [rng.normal(0, 0.12, (part.stop - part.start, 2, 4, 4)) for part in parts]
    drawn = (labels, fonts, angle, shear, width)
    work = (delayed(render)(*(of[part] for of in drawn), bend, size) for part, bend in zip(parts, bends, strict=True))
    processes = -1 if len(parts) > 20 else 1  # each takes seconds to start
    return np.concatenate(Parallel(n_jobs=processes)(work)), labels.astype(np.int64)


def some_printed(size: int = 8) -> SampleSet:
    """`SOME` of them. The runs of a sweep share one rendering, which takes seconds."""
    images, labels = _some(size)
    return SampleSet(images.copy(), labels.copy(), num_classes=10)


@functools.lru_cache(maxsize=2)
def _some(size: int) -> tuple[np.ndarray, np.ndarray]:
    return printed(SOME, size=size)


def render(
    labels: np.ndarray, fonts: np.ndarray, angle: np.ndarray, shear: np.ndarray, width: np.ndarray, bend: np.ndarray, size: int
) -> np.ndarray:
    """uint8 [N, size, size, 1]: digit `labels[i]` in the face `fonts[i]`, warped (`angle` in degrees), cropped and scaled."""
    source = torch.from_numpy(_glyphs()[fonts, labels])[:, None].float()
    warped = warp(source, np.deg2rad(angle), shear, width, bend)[:, 0].numpy()
    return np.stack([_normalise(ink, size, _MARGINS[size]) for ink in warped])[..., None]


def warp(x: torch.Tensor, angle: np.ndarray, shear: np.ndarray, width: np.ndarray, bend: np.ndarray) -> torch.Tensor:
    """Float images [N, C, S, S], each turned by its angle (radians), sheared, `width` times as wide and bent; outside is black.

    `bend` float [N, 2, 4, 4]: offsets of a grid of points, half the canvas being 1.
    """
    rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    stretch = np.stack([1 / width, shear, np.zeros_like(width), np.ones_like(width)], -1).reshape(-1, 2, 2)
    affine = np.concatenate([rotation @ stretch, np.zeros((len(x), 2, 1))], -1)  # [N, 2, 3]
    grid = F.affine_grid(torch.from_numpy(affine).float(), list(x.shape), align_corners=False)  # [N, S, S, 2]
    offsets = F.interpolate(torch.from_numpy(bend).float(), size=x.shape[2:], mode="bicubic").permute(0, 2, 3, 1)
    return F.grid_sample(x, grid + offsets, align_corners=False)


def num_fonts() -> int:
    return len(_glyphs())


def _normalise(ink: np.ndarray, size: int, margin: int) -> np.ndarray:
    """Crop to the glyph, scale to the height between margins keeping the aspect ratio, centre, box-filter to size×size."""
    height = size - 2 * margin
    rows, cols = np.flatnonzero(ink.max(1) > 64), np.flatnonzero(ink.max(0) > 64)
    crop = Image.fromarray(ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].round().astype(np.uint8))
    columns = int(np.clip(round(height * crop.width / crop.height), 2, height))
    out = np.zeros((size, size), np.uint8)
    left = (size - columns) // 2
    out[margin : margin + height, left : left + columns] = np.asarray(crop.resize((columns, height), Image.Resampling.BOX))
    return out


@functools.cache
def _glyphs(size: int = 64) -> np.ndarray:
    """Every digit in every DejaVu face: uint8 [fonts, 10, size, size], ink 255."""
    import matplotlib

    paths = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    paths = [path for path in paths if "Display" not in path.stem]  # the Display faces hold no digits
    glyphs = np.zeros((len(paths), 10, size, size), np.uint8)
    for i, path in enumerate(paths):
        font = ImageFont.truetype(str(path), int(size * 0.6))
        for digit in range(10):
            canvas = Image.new("L", (size, size))
            ImageDraw.Draw(canvas).text((size / 2, size / 2), str(digit), fill=255, font=font, anchor="mm")
            glyphs[i, digit] = np.asarray(canvas)
    return glyphs


@dataclass(kw_only=True)
class Printed(Dataset):
    """All of them, as somebody's public counterpart."""

    name: str = "printed"
    class_counts: ClassCounts = ClassCounts.uniform
    image_size: int = 28  # side of an image, in pixels

    @property
    def num_train(self) -> int:
        return NUM_PRINTED

    @property
    def num_test(self) -> int:
        return 0

    @property
    def num_public(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 1)

    @property
    def all_classes(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def train(self) -> SampleSet:
        return SampleSet(*printed(size=self.image_size), num_classes=10)

    def some(self) -> SampleSet:
        """20,000 of them, quickly."""
        return some_printed(self.image_size)
