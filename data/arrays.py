"""Images in one npz: of our own kind, as a release has them, of MedMNIST's or of Keras'.

Ours: `images` uint8 [N, H, W, C], `labels` [N], perhaps `num_classes`. MedMNIST: `train_images` [N, H, W] or [N, H, W, 3] with
`train_labels` [N, 1], and so `val` and `test`. Keras: `x_train`, `y_train`, `x_test`, `y_test`.
"""

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

PAIRS = {  # of arrays, by the part that they are
    "images": {"train": ("images", "labels")},
    "train_images": {part: (f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")},
    "x_train": {part: (f"x_{part}", f"y_{part}") for part in ("train", "val", "test")},
}


def array_splits(path: Path) -> dict[str, Listing]:
    """`train`, and `val` and `test` where they are there. Of images only headers are read. InputError names what is wrong."""
    try:
        with np.load(path, allow_pickle=False) as file:
            there = set(file.files)
    except Exception as error:  # a foreign file may make anything of its reader
        raise unusable_file(path, f"it is no readable npz ({reason(error)})") from error
    pairs = next((pairs for first, pairs in PAIRS.items() if first in there), PAIRS["images"])
    found = {part: arrays for part, arrays in pairs.items() if arrays[0] in there or part == "train"}
    several = [] if len(found) == 1 else [number for arrays in found.values() for number in _labels(path, *arrays).tolist()]
    classes = max(several) + 1 if several else None  # a part need not have an image of every one
    return {part: _list_arrays(path, *arrays, classes=classes) for part, arrays in found.items()}


def _list_arrays(path: Path, images: str, labels: str, classes: int | None) -> Listing:
    try:
        with np.load(path, allow_pickle=False) as file:
            declared = int(file["num_classes"]) if "num_classes" in file else classes
    except Exception as error:
        raise unusable_file(path, f"its num_classes is no number ({reason(error)})") from error
    shape, dtype = _image_header(path, images)
    if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]:
        raise unusable_file(path, f"{images} are {dtype} {list(shape)}, not uint8 [N, H, W, 1 or 3] or [N, H, W]")
    numbers = _labels(path, images, labels).tolist()
    last = max(numbers, default=-1) if declared is None else declared - 1
    if not all(0 <= number <= last for number in numbers):
        raise unusable_file(path, f"labels are not all inside 0 … {last}")
    names = [f"image {row}" for row in range(len(numbers))]
    channels = shape[3] if len(shape) == 4 else 1
    opened = functools.partial(_loaded, path, images)
    return Listing.of(path, range(last + 1), names, numbers, opened, math.prod(shape), channels=channels)


def _image_header(path: Path, images: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        return header(path, images)
    except Exception as error:
        raise unusable_file(path, f"it is no npz with images and labels ({reason(error)})") from error


def _labels(path: Path, images: str, labels: str) -> np.ndarray:
    """Whole numbers [N]."""
    count = _image_header(path, images)[0][:1]
    try:
        with np.load(path, allow_pickle=False) as file:
            found = file[labels]
    except Exception as error:
        raise unusable_file(path, f"it is no npz with images and labels ({reason(error)})") from error
    flat = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.dtype.kind not in "iu" or flat.shape != count:
        raise unusable_file(path, f"labels are {found.dtype} {list(found.shape)}, not whole numbers {list(count)}")
    return flat.astype(np.int64) if flat.dtype != np.uint64 else flat  # whose largest is more than that holds


def header(path: Path, array: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in an npz; none of its values is read."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{array}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return shape, dtype


@contextmanager
def _loaded(path: Path, array: str) -> Iterator[Read]:
    try:
        with np.load(path, allow_pickle=False) as file:
            images = file[array]
    except Exception as error:
        raise unusable_file(path, f"{array} cannot be read ({reason(error)})") from error
    images = images if images.ndim == 4 else images[..., None]
    yield lambda name: images[int(name.split()[1])]
