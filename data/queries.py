"""Sums over private images under a Gaussian mechanism. A run that is killed and started again gets the same noisy answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.private import PrivateDataset
from data.samples import SampleSet
from disk import whole_file
from errors import reject_unless
from privacy.mechanisms import Gaussian
from privacy.noise import NoiseSource
from tracking import ranks


@dataclass(frozen=True)
class Query:
    """What one Gaussian mechanism is asked for: sums of L2 sensitivity 1."""

    purpose: str
    exact: Callable[[SampleSet], np.ndarray]  # sums without noise: of private images, nobody may see them


Ask = Callable[[Query, float], np.ndarray]  # noisy sums, by a query and its noise multiplier


def noisy_answer(private: PrivateDataset, noise: NoiseSource, folder: Path, query: Query, sigma: float) -> np.ndarray:
    """Kept in `folder`, the run's checkpoints, so that a killed run goes on with the same."""
    images, kept = private.spend(query.purpose, Gaussian(sigma)), folder / f"{query.purpose}.npz"
    if kept.exists():
        with np.load(kept) as file:
            noisy = file["sums"]
        wanted = query.exact(images[:0]).shape
        same = noisy.shape == wanted
        reject_unless(
            same, "hydra.run.dir", kept.parents[2], "an earlier version of this program began it; start in another directory"
        )
    else:
        noisy = query.exact(images)
        noisy += noise.stream(query.purpose).gaussian(sigma, noisy.size).reshape(noisy.shape)
        with whole_file(kept) as file:
            np.savez(file, sums=noisy)
    return ranks.broadcast(noisy)  # processes may round differently
