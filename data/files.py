"""Images in files: class folders, StyleGAN's and EDM's `dataset.json`, zips of either, npz. Listed first, decoded later.

A listing opens no image. Decoding gives every image one shape, and says of a bad one which it is.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from data.images import conform
from data.samples import SampleFileError, SampleSet
from errors import InputError

MAX_PIXELS = 64_000_000  # a picture of more is a mistake, or an attack on memory
MODES = ("1", "L", "P", "RGB")  # besides opaque RGBA, LA; others carry transparency, ink or more bits: to convert is a decision

_UNREADABLE = (
    OSError, RuntimeError, ValueError, SyntaxError, EOFError, KeyError,
    zipfile.BadZipFile, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class OnBad(Enum):
    """What an unreadable image does."""

    error = "error"  # stops the run before anything is spent
    skip = "skip"  # is left out, and counted


@dataclass
class Listing:
    """Names of images with labels in 0 … len(classes) - 1, and how to read one: its bytes, or its pixels."""

    where: Path
    classes: list[str]
    names: list[str]
    labels: np.ndarray  # int64 [N]
    read: Callable[[str], bytes | np.ndarray]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray) -> Listing:
        return Listing(self.where, self.classes, [self.names[row] for row in rows], self.labels[rows], self.read)

    def of_classes(self, names: list[str]) -> Listing:
        """The images of these classes, labelled in their order."""
        label_of = np.array([names.index(name) if name in names else -1 for name in self.classes])[self.labels]
        part = self[np.flatnonzero(label_of >= 0)]
        return Listing(self.where, names, part.names, label_of[label_of >= 0], self.read)


def list_images(path: Path) -> Listing:
    """InputError, with the name of what is wrong, unless every image has one label and every class an image."""
    if path.is_dir():
        files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        listing = _labelled(path, files, lambda name: (path / name).read_bytes())
    elif path.suffix == ".npz":
        listing = _arrays(path)
    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
            listing = _labelled(path, _members(path, archive), archive.read)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:  # torn, encrypted, of another kind
            raise InputError(f"{path}: is no readable zip ({error})") from error
    else:
        raise InputError(f"{path}: is no folder, zip or npz of images")
    if not len(listing):
        raise InputError(f"{path}: holds no images")
    counts = np.bincount(listing.labels, minlength=len(listing.classes))
    if (counts == 0).any():
        raise InputError(f"{path}: class {listing.classes[int(np.argmin(counts))]} has no image")
    return listing


@dataclass
class Decoded:
    samples: SampleSet
    rows: np.ndarray  # of the listing, int64 [N]
    bad: list[str]  # what is wrong with the others


def decode(listing: Listing, shape: tuple[int, int, int], on_bad: OnBad = OnBad.error) -> Decoded:
    """uint8 images of one shape, cropped to their central square and resized (see `conform`).

    InputError for the first bad image in the order of names, or for a class that skipping leaves empty.
    """
    images, errors = np.empty((len(listing), *shape), np.uint8), [""] * len(listing)

    def fill(row: int) -> None:
        try:
            images[row] = _pixels(listing.read(listing.names[row]), shape)
        except _UNREADABLE as error:
            errors[row] = f"{listing.where}: {listing.names[row]} is no readable image ({str(error) or type(error).__name__})"

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(len(listing)), chunksize=64):
            pass
    bad = [error for error in errors if error]
    if bad and on_bad is OnBad.error:
        raise InputError(bad[0] + (f"; and {len(bad) - 1} more" if len(bad) > 1 else "") + "; or dataset.on_bad=skip")
    good = np.array([not error for error in errors])
    labels = listing.labels[good]
    if lost := set(listing.labels.tolist()) - set(labels.tolist()):
        raise InputError(f"{listing.where}: class {listing.classes[min(lost)]} has no good image; the first bad one: {bad[0]}")
    samples = SampleSet(images if not bad else images[good], labels, len(listing.classes))
    return Decoded(samples, np.flatnonzero(good), bad)


def _pixels(found: bytes | np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if isinstance(found, np.ndarray):
        return conform(_central_square(found)[None], shape)[0]
    with Image.open(io.BytesIO(found)) as opened:
        image = ImageOps.exif_transpose(opened) if opened.width * opened.height <= MAX_PIXELS else opened
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
        opaque = image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema() == (255, 255)
        if image.mode not in MODES and not opaque:
            raise ValueError(f"mode {image.mode}; convert it to RGB or grey")
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return conform(_central_square(pixels.reshape(*pixels.shape[:2], -1))[None], shape)[0]


def _central_square(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _labelled(where: Path, files: list[str], read: Callable[[str], bytes]) -> Listing:
    """Labels from `dataset.json` where there is one, else from the folder that a file is in."""
    if "dataset.json" in files:
        return _from_json(where, files, read)
    images = [name for name in files if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)]
    depth = {name: len(PurePosixPath(name).parts) for name in images}
    if wrong := next((name for name in images if depth[name] != 2), None):
        raise InputError(f"{where}: {wrong} is not in a class folder, and there is no dataset.json")
    classes = sorted({PurePosixPath(name).parts[0] for name in images})
    if where.is_dir():
        folders = [folder.name for folder in where.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        classes = sorted({*classes, *folders})
    labels = np.array([classes.index(PurePosixPath(name).parts[0]) for name in images], np.int64)
    return Listing(where, classes, images, labels, read)


def _from_json(where: Path, files: list[str], read: Callable[[str], bytes]) -> Listing:
    """EDM's `{"labels": [["00000/img00000000.png", 6], …]}`."""
    try:
        pairs = json.loads(read("dataset.json"))["labels"]
        if pairs is None:
            raise InputError(f"{where}: dataset.json has no labels; give every image one, 0 for a single class")
        names, labels = [str(name) for name, _ in pairs], [label for _, label in pairs]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: dataset.json has no list of names and labels under `labels` ({error})") from error
    images = {name for name in files if name != "dataset.json" and not PurePosixPath(name).name.startswith(".")}
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise InputError(f"{where}: {repeated} has two labels in dataset.json")
    if missing := next((name for name in names if name not in images), None):
        raise InputError(f"{where}: {missing} is in dataset.json, and not among the files")
    if without := min(images - set(names), default=None):
        raise InputError(f"{where}: {without} has no label in dataset.json")
    if wrong := next((f"{n}: {y}" for n, y in zip(names, labels, strict=True) if type(y) is not int or y < 0), None):
        raise InputError(f"{where}: dataset.json has a label that is no class number: {wrong}")
    classes = [str(label) for label in range(max(labels, default=-1) + 1)]
    order = np.argsort(names)
    return Listing(where, classes, [names[i] for i in order], np.array(labels, np.int64)[order], read)


def _members(path: Path, archive: zipfile.ZipFile) -> list[str]:
    files = [info for info in archive.infolist() if not info.is_dir()]
    for info in files:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise InputError(f"{path}: holds {info.filename!r}, a name outside the archive")
        if info.file_size > 4 * MAX_PIXELS:
            raise InputError(f"{path}: {info.filename} unpacks to {info.file_size:,} bytes")
    names = [info.filename for info in files]
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise InputError(f"{path}: holds {repeated} twice")
    return sorted(names)


def _arrays(path: Path) -> Listing:
    """An npz with `images` uint8 [N, H, W, C] and `labels` int64 [N], as a release has them. Only labels are read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"].astype(np.int64)
            num_classes = int(file["num_classes"]) if "num_classes" in file else int(labels.max(initial=-1)) + 1
    except (*_UNREADABLE, TypeError) as error:
        raise InputError(f"{path}: no npz with images and labels ({error})") from error
    if labels.ndim != 1 or not ((labels >= 0) & (labels < num_classes)).all():
        raise InputError(f"{path}: labels are not all inside 0 … {num_classes - 1}")
    names = [f"image {row}" for row in range(len(labels))]
    classes = [str(label) for label in range(num_classes)]
    return Listing(path, classes, names, labels, _Rows(path))


class _Rows:
    """Images of an npz by name, loaded once, at the first call."""

    def __init__(self, path: Path):
        self.path, self.lock, self.images, self.error = path, threading.Lock(), np.empty(0), ""

    def __call__(self, name: str) -> np.ndarray:
        with self.lock:
            if not len(self.images) and not self.error:
                try:
                    self.images = SampleSet.load(self.path).images
                except SampleFileError as error:
                    self.error = str(error)
        if self.error:
            raise ValueError(self.error)
        return self.images[int(name.split()[1])]
