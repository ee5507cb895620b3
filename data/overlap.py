"""Whether private, test and public images are kept apart: by the places that settings name, and by their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from errors import InputError, reason, unusable, unusable_file
from tracking.progress import console

PUBLIC_DIGESTS = "public_images.npy"  # beside public weights: digests of the images that they were trained on


def require_apart(places: Mapping[str, str | None]) -> None:
    """`places` by setting; InputError where two of them are one file or folder, or one lies within the other."""
    real = {key: Path(place).resolve() for key, place in places.items() if place is not None and Path(place).exists()}
    for (one, first), (other, second) in combinations(real.items(), 2):
        if first.samefile(second) or first in second.parents or second in first.parents:
            problem = f"it must lie apart from {one}={places[one]}, as one is not to hold the other"
            raise unusable(other, places[other], problem)


def pixel_digests(images: np.ndarray) -> np.ndarray:
    """uint64 [N], sorted: 64 bits of BLAKE2b of each uint8 image of [N, H, W, C] and its shape."""
    start = hashlib.blake2b(str(images.shape[1:]).encode(), digest_size=8)
    found = np.empty(len(images), np.uint64)
    for row, image in enumerate(images):
        digest = start.copy()
        digest.update(np.ascontiguousarray(image).data)
        found[row] = int.from_bytes(digest.digest(), "big")
    return np.sort(found)


def digests_beside(places: Iterable[Path]) -> np.ndarray | None:
    """Of the public images that the weights in these folders were trained on, uint64 [N]; None where none are kept."""
    files = [place / PUBLIC_DIGESTS for place in places if (place / PUBLIC_DIGESTS).is_file()]
    return np.unique(np.concatenate([read_digests(file) for file in files])) if files else None


def read_digests(file: Path) -> np.ndarray:
    """InputError where the file is not what `pretrain_public` wrote."""
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unusable_file(file, f"it holds no digests of public images ({reason(error)})") from error
    if found.dtype != np.uint64 or found.ndim != 1:
        raise unusable_file(file, f"it holds no digests of public images, but {found.dtype} {list(found.shape)}")
    return found


def require_private_unseen(private: np.ndarray, public: Mapping[str, Iterable[np.ndarray]]) -> None:
    """`private` are digests; `public` those of public images by setting, in parts.

    InputError with the number of private images that are among the public ones. It is told on this machine, before anything
    is spent, and stops the run.
    """
    for key, parts in public.items():
        seen = np.zeros(len(private), bool)
        for digests in parts:
            seen |= np.isin(private, digests)
        if count := int(seen.sum()):
            them = "image is" if count == 1 else "images are"
            problem = f"{count} private {them} also among these public ones; take them out of one of the two"
            raise InputError(f"{key} cannot be used: {problem}.", key)


def warn_of_shared_test_images(private: np.ndarray, test: np.ndarray) -> None:
    """Both are digests. How many there are is private, and a terminal may be a log: `scripts.inspect` says it."""
    if np.isin(test, private).any():
        told = (
            "warning: some test images are also private ones, so what is measured on them is too good; "
            "python -m scripts.inspect says how many"
        )
        console.print(told, highlight=False, markup=False, soft_wrap=True)
