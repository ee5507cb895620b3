"""Files that are on disk whole or not at all, whenever the power goes; and their digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write: synced, and there whole or not at all."""
    fresh = path.with_name(path.name + ".partial")
    with fresh.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def write_whole(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def sync_tree(folder: Path) -> None:
    """All that is in it."""
    for path in folder.rglob("*"):
        sync_folder(path) if path.is_dir() else _sync_file(path)
    sync_folder(folder)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """A new or renamed file survives a power cut once its folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def private_folder(path: Path) -> None:
    """A folder, there before or not, that nobody but its owner can open."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # it is another user's
        path.chmod(0o700)


def write_json(path: Path, values: Any) -> None:
    write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below it, by its name there, in alphabetical order."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: sha256_of(files[name]) for name in sorted(files)}
