"""What Private Evolution keeps of its rounds: noisy votes, the few images of each population that are shown, and a sample of it.

Votes are kept as they left the mechanism, noisy and thresholded: private by DP. Exact votes are nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.grid import present
from data.images import conform
from data.samples import SampleSet
from disk import whole_file

SHOWN = 10  # images of a class: the first, the most voted, the least voted
LARGEST_SIDE = 128  # pixels; larger ones are shown smaller
SAMPLED, SAMPLED_BYTES = 2000, 2**25  # at most so much of a population is in its sample


@dataclass
class Round:
    """Population `index` (0: of random images), and the votes on it: float64 [N], None for the last."""

    index: int
    labels: np.ndarray  # int64 [N]
    votes: np.ndarray | None
    _rows: np.ndarray  # int64 [M], ascending: whose images are kept
    _images: np.ndarray  # uint8 [M, H, W, C]
    _file: Path

    @property
    def noisy_votes(self) -> np.ndarray:
        assert self.votes is not None
        return self.votes

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Of row numbers that `first` or `voted` gave."""
        return self._images[np.searchsorted(self._rows, rows)]

    @property
    def sample(self) -> np.ndarray | None:
        """uint8 [S, H, W, C], at full size: equally many images of every round, and of every class its share; None where an
        earlier version kept none."""
        with np.load(self._file, allow_pickle=False) as file:
            return file["sample"] if "sample" in file.files else None


def first(labels: np.ndarray) -> list[np.ndarray]:
    """Row numbers of the first images of each class, one array a class."""
    return [np.flatnonzero(labels == label)[:SHOWN] for label in present(labels)]


def voted(labels: np.ndarray, votes: np.ndarray, most: bool) -> list[np.ndarray]:
    """Those with the most votes, or the fewest, in order; of equal ones the first."""
    classes = [np.flatnonzero(labels == label) for label in present(labels)]
    return [mine[np.argsort(-votes[mine] if most else votes[mine], kind="stable")[:SHOWN]] for mine in classes]


def keep_round(checkpoints: Path, index: int, population: SampleSet, votes: np.ndarray | None) -> None:
    """Write it down. The same round has the same bytes; a killed run that goes on writes it again."""
    labels = population.labels
    chosen = first(labels) + ([] if votes is None else voted(labels, votes, True) + voted(labels, votes, False))
    rows = np.unique(np.concatenate(chosen))
    arrays: dict[str, Any] = {
        "labels": labels,
        "rows": rows,
        "images": _small(population.images[rows]),
        "sample": population.images[_spread(population.images)],
    }
    if votes is not None:
        arrays["votes"] = votes
    path = _path(checkpoints, index)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def kept_rounds(checkpoints: Path) -> Iterator[Round]:
    """In order, as far as they are there."""
    index = 0
    while (path := _path(checkpoints, index)).exists():
        with np.load(path, allow_pickle=False) as file:
            votes = file["votes"] if "votes" in file.files else None
            yield Round(index, file["labels"], votes, file["rows"], file["images"], path)
        index += 1


def _path(checkpoints: Path, index: int) -> Path:
    return checkpoints / "rounds" / f"{index:03d}.npz"


def sample_size(count: int, shape: tuple[int, ...]) -> int:
    """Images in the sample of a population of `count` images of this shape."""
    return min(SAMPLED, max(1, SAMPLED_BYTES // math.prod(shape)), count)


def _spread(images: np.ndarray) -> np.ndarray:
    """Rows at equal distances: a population is in the order of its classes, and within a class in none."""
    return np.linspace(0, len(images) - 1, sample_size(len(images), images.shape[1:])).round().astype(int)


def _small(images: np.ndarray) -> np.ndarray:
    height, width, channels = images.shape[1:]
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    return conform(images, (max(1, round(height * scale)), max(1, round(width * scale)), channels))
