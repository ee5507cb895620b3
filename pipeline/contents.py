"""What a release holds: samples, or a classifier that was trained on the private images. Elsewhere a run does not ask which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.dataset import Dataset
from data.grid import save_grid
from data.shards import open_release, sample_files, save_release
from errors import reject_unless
from method import Made
from models.classifiers.released import WEIGHTS, ReleasedClassifier
from pipeline.card import class_names

GRID = "grid.png"


def write_contents(made: Made, folder: Path, classes: list[str]) -> None:
    if isinstance(made, ReleasedClassifier):
        made.save(folder)
    else:
        save_release(made, folder)
        save_grid(made, folder / GRID, classes=classes)


def contents(made: Made, classes: list[str]) -> dict[str, Any]:
    """For the certificate."""
    if isinstance(made, ReleasedClassifier):
        return {"classifier": made.name.value, "classes": made.classes}
    return {"num_samples": len(made), "classes": class_names(made, classes)}


def holds_contents(folder: Path) -> bool:
    return (folder / WEIGHTS).exists() or bool(sample_files(folder))


def open_contents(folder: Path, dataset: Dataset) -> Made:
    """Of a release/ folder; of a file or a folder of samples, these. InputError where they do not fit `dataset`."""
    if not (folder / WEIGHTS).exists():
        return open_release(folder, dataset)
    found = ReleasedClassifier.load(folder)
    same = (found.shape, found.classes) == (dataset.shape, dataset.classes)
    reject_unless(same, "release", folder, f"its classifier is of other images or classes than those of dataset={dataset.name}")
    return found


def to_look_at(folder: Path) -> tuple[str, Path]:
    """What a release shows first: its name, and where it is."""
    return ("grid picture", folder / GRID) if (folder / GRID).exists() else ("classifier", folder / WEIGHTS)
