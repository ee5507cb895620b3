"""Names of folders and files that say which part of a dataset they are: for training, for tests, for validation."""

from __future__ import annotations

import re
from pathlib import Path

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
_FILLERS = ("", "set", "data", "dataset", "images", "split")


def part_of_file(file: Path) -> str | None:
    """`train`, `test` or `val` of a shard such as `train-00000-of-00002`, by its own name or that of the nearest folder."""
    return next((part for name in (file.stem, *reversed(file.parent.parts)) if (part := _part_in(name))), None)


def part_of_folder(name: str) -> str | None:
    """Of a folder that is a part and hardly a class, by all of its name: `train`, `test_set`, `validation-images`."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word not in _FILLERS]
    return PARTS.get(words[0]) if len(words) == 1 else None


def _part_in(name: str) -> str | None:
    return next((PARTS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in PARTS), None)


def name_below(where: Path, file: Path) -> Path:
    """Of a file that is `where`, or lies below it."""
    return Path(file.name) if file == where else file.relative_to(where)
