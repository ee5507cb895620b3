"""Images in one npz, as a release has them: `images` uint8 [N, H, W, C], `labels` [N], perhaps `num_classes`."""

from __future__ import annotations

import functools
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data.decoding import Listing, Read
from errors import reason, unusable_file


def list_arrays(path: Path) -> Listing:
    """Of the images only the header is read. InputError names the array that is wrong."""
    try:
        shape, dtype = header(path, "images")
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"]
            declared = int(file["num_classes"]) if "num_classes" in file else None
    except Exception as error:  # a foreign file may make anything of its reader
        raise unusable_file(path, f"it is no npz with images and labels ({reason(error)})") from error
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape[1:]:
        raise unusable_file(path, f"images are {dtype} {list(shape)}, not uint8 [N, H, W, 1 or 3]")
    if labels.dtype.kind not in "iu" or labels.shape != shape[:1]:
        raise unusable_file(path, f"labels are {labels.dtype} {list(labels.shape)}, not whole numbers [{shape[0]}]")
    numbers = labels.tolist()
    last = max(numbers, default=-1) if declared is None else declared - 1
    if not all(0 <= number <= last for number in numbers):
        raise unusable_file(path, f"labels are not all inside 0 … {last}")
    names = [f"image {row}" for row in range(len(numbers))]
    return Listing.of(path, range(last + 1), names, numbers, functools.partial(_loaded, path), math.prod(shape))


def header(path: Path, array: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in an npz; none of its values is read."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{array}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return shape, dtype


@contextmanager
def _loaded(path: Path) -> Iterator[Read]:
    try:
        with np.load(path, allow_pickle=False) as file:
            images = file["images"]
    except Exception as error:
        raise unusable_file(path, f"images cannot be read ({reason(error)})") from error
    yield lambda name: images[int(name.split()[1])]
