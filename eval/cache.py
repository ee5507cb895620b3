"""Statistics of real images that are kept between runs: they are of private images, and lie under internal/."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from disk import private_folder, whole_file
from eval.frechet import Gaussian
from tracking.progress import console


def content_key(images: np.ndarray, embedding: str, identity: str) -> str:
    """SHA-256 of uint8 images [N, H, W, C] and of what turns them into features."""
    digest = hashlib.sha256(f"{embedding} {identity} {list(images.shape)}".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def kept_gaussian(folder: Path | None, key: str, fit: Callable[[], Gaussian]) -> Gaussian:
    """What is in `folder` under the key; fitted, and kept there, where that is missing, torn, or something else's."""
    if folder is None:
        return fit()
    path = folder / f"{key}.npz"
    if (before := _read(path, key)) is not None:
        return before
    fitted = fit()
    try:
        _write(path, key, fitted)
    except OSError as error:
        console.print(f"eval.cache={folder}: is not kept ({error})", highlight=False, soft_wrap=True)
    return fitted


def _write(path: Path, key: str, fitted: Gaussian) -> None:
    private_folder(path.parent)  # statistics of private images, without noise
    own = path.with_suffix(f".{os.getpid()}")  # the runs of a sweep may write the same at once
    with whole_file(own) as file:
        np.savez(file, key=np.array(key), count=fitted.count, mean=fitted.mean, covariance=fitted.covariance)
    os.replace(own, path)


def _read(path: Path, key: str) -> Gaussian | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            name, count, mean, covariance = (file[part] for part in ("key", "count", "mean", "covariance"))
    except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None
    ours = str(name) == key and count.shape == () and covariance.shape == 2 * mean.shape and mean.ndim == 1
    doubles = mean.dtype == covariance.dtype == np.float64 and np.issubdtype(count.dtype, np.integer)
    return Gaussian(int(count), mean, covariance) if ours and doubles else None
