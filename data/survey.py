"""What a listing holds, for the person whose images they are: sizes, modes, ranges, users. Numbers are private."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from data.decoding import DEEP, Listing
from data.deep import is_dicom


@dataclass
class Survey:
    classes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width, height
    modes: Counter[str] = field(default_factory=Counter)
    deepest: tuple[float, float] | None = None  # of values of more than 8 bits, smallest and largest
    images_of_users: list[int] = field(default_factory=list)


def survey(listing: Listing) -> Survey:
    """By the headers of files, and the pixels of those of more than 8 bits."""
    found = Survey(Counter(listing.classes[label] for label in listing.labels))
    if listing.users is not None:
        found.images_of_users = sorted(Counter(listing.users).values())
    with listing.opened() as read, warnings.catch_warnings(action="ignore"):
        for name in listing.names:
            try:
                there = read(name)
                if isinstance(there, np.ndarray):
                    found.sizes[there.shape[1], there.shape[0]] += 1
                    found.modes["L" if there.shape[2] == 1 else "RGB"] += 1
                    continue
                with there:
                    if is_dicom(there):
                        found.modes["DICOM"] += 1
                        continue
                    with Image.open(there) as image:
                        found.sizes[image.size] += 1
                        found.modes[image.mode] += 1
                        if image.mode in DEEP:
                            low, high = map(float, np.ravel(image.getextrema()))
                            before = found.deepest or (low, high)
                            found.deepest = min(before[0], low), max(before[1], high)
            except Exception:  # foreign bytes may make anything of their reader; `decode` says what is wrong with them
                continue
    return found
