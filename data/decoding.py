"""From a listing of images to uint8 images of one shape. Each is opened here for the first time, and a bad one is named."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data.deep import is_dicom, read_dicom, windowed
from data.images import resized, to_image
from data.samples import SampleSet
from errors import reason, unusable_file

MAX_PIXELS = 64_000_000  # a picture of more is a mistake, or an attack on memory; nor are more decoded at a time
BYTES_PER_PIXEL = 20  # of a picture and its decoder's buffers; JPEG 2000 takes most
WORKERS = min(32, (os.cpu_count() or 1) + 4)  # more than cores, as files may be far away
PICTURES = BYTES_PER_PIXEL * MAX_PIXELS  # bytes that those decoded at a time take
IN_MEMORY = 1 << 30  # bytes of decoded images
NAMED = 5  # bad images that a refusal names
DICOM = (".dcm", ".dicom")
ENDINGS = {  # of names of images
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", *DICOM),
}
MODES = ("1", "L", "P", "RGB", "LA", "RGBA")
CONVERTED = ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La", "PA")  # of 8 bits too: by Pillow, with a note
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # grey of more bits: by dataset.window

Read = Callable[[str], IO[bytes] | np.ndarray]  # a file by name, or uint8 [H, W, 1 or 3] that is in memory


class OnBad(Enum):
    """What an unreadable image does."""

    error = "error"  # stops the run before anything is spent
    skip = "skip"  # is left out, and counted


class Fit(Enum):
    """How a picture that is no square becomes one."""

    crop = "crop"  # its central square
    pad = "pad"  # with black at two sides


@dataclass(frozen=True)
class Reading:
    """From a picture to 8 bits and a square, by public constants."""

    fit: Fit = Fit.crop
    window: tuple[float, float] | None = None  # of more than 8 bits: what becomes black and white


@dataclass
class Listing:
    """Names of images with labels in 0 … len(classes) - 1; while `opened` is entered, they can be read."""

    where: Path
    classes: list[str]
    names: list[str]
    labels: np.ndarray  # int64 [N]
    opened: Callable[[], AbstractContextManager[Read]]
    decoding_bytes: int = PICTURES  # at most, besides the images that come out
    users: list[str] | None = None  # whose each image is, where that is known
    channels: int | None = None  # of every image, where that is known without opening one

    @classmethod
    def of(
        cls,
        where: Path,
        classes: Sequence[str] | range,
        names: list[str],
        labels: Sequence[int],
        opened: Callable[[], AbstractContextManager[Read]],
        decoding_bytes: int = PICTURES,
        users: list[str] | None = None,
        channels: int | None = None,
    ) -> Listing:
        """InputError unless there are images, and some of every class: a number of classes too large to list is refused."""
        if not names:
            raise unusable_file(where, "it holds no images")
        seen = set(labels)
        if (gap := next((name for label, name in enumerate(classes) if label not in seen), None)) is not None:
            last = max(range(len(names)), key=labels.__getitem__)
            told = "every class needs one"
            if isinstance(classes, range):  # one wrong number makes many classes
                told = f"classes go to {classes[-1]}, images to class {classes[labels[last]]} ({names[last]})"
            raise unusable_file(where, f"class {gap} has no image; {told}")
        known = [str(name) for name in classes]
        return cls(where, known, names, np.array(labels, np.int64), opened, decoding_bytes, users, channels)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray) -> Listing:
        users = None if self.users is None else [self.users[row] for row in rows]
        return replace(self, names=[self.names[row] for row in rows], labels=self.labels[rows], users=users)

    @property
    def chosen_by(self) -> list[str]:
        """Of each image the name whose hash decides whether it is held out: its user's where that is known, else its own."""
        return self.names if self.users is None else self.users

    def of_classes(self, names: list[str]) -> Listing:
        """The images of these classes, labelled in their order."""
        label_of = np.array([names.index(name) if name in names else -1 for name in self.classes])[self.labels]
        return replace(self[np.flatnonzero(label_of >= 0)], classes=names, labels=label_of[label_of >= 0])


@dataclass
class Decoded:
    samples: SampleSet
    rows: np.ndarray  # of the listing, int64 [N]
    bad: list[str]  # what is wrong with the others
    modes: Counter[str]  # how many are of each mode that was converted


def decode(
    listing: Listing,
    shape: tuple[int, int, int],
    on_bad: OnBad = OnBad.error,
    change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    reading: Reading = Reading(),
) -> Decoded:
    """uint8 images of one shape, made square, resized (see `conform`) and changed.

    InputError for the first bad images in the order of names, unless those are skipped. Skipping may leave a class without an
    image, or none at all: of private images, one must not decide whether there is a run. The listing names the classes.
    """
    images, errors, modes = room_for((len(listing), *shape)), [""] * len(listing), [""] * len(listing)
    room = _Room(MAX_PIXELS)

    def fill(rows: range) -> None:
        for row in rows:
            name = listing.names[row]
            try:
                pixels, modes[row] = _pixels(read(name), shape, room, reading)
                images[row] = change(pixels)
            except Exception as error:  # foreign bytes may make anything of their reader
                told = "of no known format" if isinstance(error, UnidentifiedImageError) else reason(error)
                errors[row] = f"{name} is no readable image ({told})"

    quiet = warnings.catch_warnings(action="ignore")  # Pillow's, of images that are read all the same
    step = max(1, min(64, len(listing) // (4 * WORKERS)))  # of large pictures there may be few
    with listing.opened() as read, quiet, ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(fill, [range(start, min(start + step, len(listing))) for start in range(0, len(listing), step)]):
            pass
    bad = [error for error in errors if error]
    if bad and on_bad is OnBad.error:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise unusable_file(listing.where, f"{'; '.join(bad[:NAMED])}{more}; dataset.on_bad=skip leaves them out")
    good = np.array([not error for error in errors], bool)
    labels = listing.labels[good]
    users = None if listing.users is None else _numbered([listing.users[row] for row in np.flatnonzero(good)])
    samples = SampleSet(_moved_up(images, good) if bad else images, labels, len(listing.classes), users=users)
    return Decoded(samples, np.flatnonzero(good), bad, Counter(mode for mode in modes if mode))


def _moved_up(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The images that are kept (bool [N]), in the first places of the same array: a copy would need its memory again."""
    rows = np.flatnonzero(kept)
    for place, row in enumerate(rows):
        if place != row:
            images[place] = images[row]
    return images[: len(rows)]


def room_for(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [*shape]: in main memory, or from `IN_MEMORY` on in a file of the working directory that has no name, so that nothing
    is left of it when the program ends, however it ends. The system keeps in memory what of it fits."""
    if math.prod(shape) < IN_MEMORY:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(dir=Path.cwd()) as file:
        file.truncate(math.prod(shape))
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _numbered(users: list[str]) -> np.ndarray:
    """int64 [N]: users by number, in the order in which they first appear."""
    numbers = {user: number for number, user in enumerate(dict.fromkeys(users))}
    return np.array([numbers[user] for user in users], np.int64)


def _pixels(found: IO[bytes] | np.ndarray, shape: tuple[int, int, int], room: _Room, reading: Reading) -> tuple[np.ndarray, str]:
    """uint8 [*shape], and the mode that was converted, if one was."""
    if isinstance(found, np.ndarray):
        return (found if found.shape == shape else resized(_square(to_image(found), reading.fit), shape)), ""
    with found:
        if is_dicom(found):
            return resized(_square(read_dicom(found, reading.window, MAX_PIXELS), reading.fit), shape), ""
        with Image.open(found) as image:
            size = image.width * image.height
            if size > MAX_PIXELS:
                raise ValueError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}")
            if image.mode not in DEEP and any(";16" in str(tile) for tile in image.tile):  # of which Pillow would keep 8
                raise ValueError(f"mode {image.mode} of 16 bits; convert it to 8")
            with room.taken(size):
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode in DEEP:
                    return resized(_square(windowed(np.asarray(image), image.mode, reading.window), reading.fit), shape), ""
                if image.mode not in (*MODES, *CONVERTED):
                    raise ValueError(f"mode {image.mode}; convert it to RGB or grey")
                mode = image.mode if image.mode in CONVERTED else ""
                return resized(_square(_opaque(image), reading.fit), shape), mode


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in CONVERTED:
        image = image.convert("RGBA" if image.mode in ("RGBa", "La", "PA") else "RGB")
    if not image.has_transparency_data:
        return image
    image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.getchannel("A").getextrema() != (255, 255):
        raise ValueError("transparent pixels; put it on a background")
    return image


def _square(image: Image.Image, fit: Fit) -> Image.Image:
    if image.width == image.height:
        return image
    side = min(image.size) if fit is Fit.crop else max(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2  # below 0 to pad: outside an image is black
    image = image.convert("RGB") if image.mode == "P" else image  # whose black is any number
    return image.crop((left, top, left + side, top + side))


class _Room:
    """For a number of pixels: threads wait until theirs find place."""

    def __init__(self, pixels: int):
        self.free, self.changed = pixels, threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()
