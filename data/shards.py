"""A release in many files: `samples_00000.npz`, … as `scripts.sample` writes them. One of them is in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.dataset import Dataset
from data.images import conform
from data.samples import SampleFileError, SampleSet
from errors import reject_unless, require, unusable

SHARD = 100_000


class Shards(SampleSet):
    """A set whose images stay on disk: `batches` reads one shard after the other, `images` all of them at once.

    Rows that are chosen, `shards[rows]`, stay on disk too.
    """

    def __init__(self, files: _Files, rows: np.ndarray):
        self.files, self.rows = files, rows
        self.labels, self.num_classes = files.labels[rows], files.num_classes
        self.public_labels = None if files.public_labels is None else files.public_labels[rows]
        self.provenance = files.provenance

    @classmethod
    def open(cls, folder: Path, shape: tuple[int, int, int]) -> Shards:
        """Every file is read once, and SampleFileError says which is wrong. Images are made to fit `shape`."""
        files = _Files(sorted(folder.glob("samples_*.npz")), shape)
        return cls(files, np.arange(len(files.labels)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Shards:
        return Shards(self.files, self.rows[rows])

    @cached_property
    def images(self) -> np.ndarray:  # type: ignore[override]
        return self.files.read(self.rows)

    def digest(self) -> str:
        """SHA-256 of the shards' and of which rows these are."""
        digest = hashlib.sha256(" ".join(self.files.digests).encode())
        digest.update(self.rows.tobytes())
        return digest.hexdigest()

    def batches(self, batch_size: int, rng: torch.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images and labels without end: in every pass each row once, shards in random order and rows inside them too."""
        shards = np.unique(self.files.shard_of(self.rows))
        images, rows = np.empty((0, *self.files.shape), np.uint8), np.empty(0, np.int64)
        while True:
            for i in torch.randperm(len(shards), generator=rng):
                mine = self.rows[self.files.shard_of(self.rows) == shards[i]]
                mine = mine[torch.randperm(len(mine), generator=rng).numpy()]
                images, rows = np.concatenate([images, self.files.read(mine)]), np.concatenate([rows, mine])
                while len(rows) >= batch_size:
                    yield images[:batch_size], self.files.labels[rows[:batch_size]]
                    images, rows = images[batch_size:], rows[batch_size:]


class _Files:
    """Rows are counted through all files."""

    def __init__(self, paths: list[Path], shape: tuple[int, int, int]):
        if not paths:
            raise SampleFileError("no samples_*.npz there")
        self.paths, self.shape, self.digests = paths, shape, []
        labels, public, classes = [], [], set()
        for path in paths:
            part = SampleSet.load(path)
            labels.append(part.labels)
            public.append(part.public_labels)
            self.digests.append(part.digest())
            classes.add(part.num_classes)
            if len(classes) > 1:
                raise SampleFileError(f"{path}: num_classes={part.num_classes}, unlike the files before")
        self.labels, self.num_classes, self.provenance = np.concatenate(labels), classes.pop(), part.provenance
        known = [part for part in public if part is not None]
        self.public_labels = np.concatenate(known) if len(known) == len(paths) else None
        self.ends = np.cumsum([len(part) for part in labels])
        self._held: tuple[int, np.ndarray] = -1, np.empty(0)

    def shard_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ends, rows, side="right")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [len(rows), *shape], in the order of `rows`."""
        images, shards = np.empty((len(rows), *self.shape), np.uint8), self.shard_of(rows)
        for shard in np.unique(shards):
            here = shards == shard
            whole = self._shard(int(shard))
            images[here] = whole[rows[here] - (self.ends[shard] - len(whole))]
        return images

    def _shard(self, number: int) -> np.ndarray:
        if self._held[0] != number:
            self._held = -1, np.empty(0)  # let go of one before the next is read
            self._held = number, conform(SampleSet.load(self.paths[number]).images, self.shape)
        return self._held[1]


def save_release(samples: SampleSet, folder: Path, shard: int = SHARD) -> None:
    """`samples.npz`; more than `shard` images are `samples_00000.npz`, … of that many each."""
    if len(samples) <= shard:
        samples.save(folder / "samples.npz")
        return
    for number, start in enumerate(range(0, len(samples), shard)):
        samples[slice(start, start + shard)].save(shard_path(folder, number))


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"samples_{number:05d}.npz"


def open_release(release: Path, dataset: Dataset) -> SampleSet:
    """A release/ folder, an npz, or a folder of shards, in the shape of `dataset`; InputError where it does not fit."""
    reject_unless(not release.is_dir() or bool(sample_files(release)), "release", release, "it holds no samples")
    try:
        if is_sharded(release):
            samples: SampleSet = Shards.open(release, dataset.shape)
        else:
            samples = SampleSet.load(release / "samples.npz" if release.is_dir() else release)
            samples.images = conform(samples.images, dataset.shape)
    except SampleFileError as error:
        raise unusable("release", release, str(error)) from error
    made = samples.provenance.get("dataset", dataset.name)
    reject_unless(made == dataset.name, "release", release, f"it was made for dataset={made}, not {dataset.name}")
    classes = len(dataset.classes)
    allowed = f"samples of the {classes} classes of dataset={dataset.name}"
    require(samples.num_classes in (1, classes), "release", release, allowed)
    return samples


def read_samples(folder: Path) -> SampleSet:
    """What `save_release` wrote, all of it."""
    parts = [SampleSet.load(file) for file in sample_files(folder)]
    public = [part.public_labels for part in parts if part.public_labels is not None]
    return SampleSet(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        parts[0].num_classes,
        np.concatenate(public) if public else None,
        parts[0].provenance,
    )


def sample_files(folder: Path) -> list[Path]:
    """Of a release, in order; none where it holds no samples."""
    whole = folder / "samples.npz"
    return [whole] if whole.exists() else sorted(folder.glob("samples_*.npz"))


def is_sharded(release: Path) -> bool:
    return release.is_dir() and not (release / "samples.npz").exists() and any(release.glob("samples_*.npz"))
