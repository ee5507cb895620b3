"""Images in files are listed: class folders, StyleGAN's and EDM's `dataset.json`, zips of either, npz. None is opened."""

from __future__ import annotations

import functools
import io
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from data.arrays import list_arrays
from data.decoding import MAX_PIXELS, PICTURES, WORKERS, Listing
from errors import reason, unusable_file

Files = Callable[[str], IO[bytes]]
Labelled = tuple[list[str] | range, list[str], list[int]]  # classes, names of images, their labels


def list_images(path: Path) -> Listing:
    """InputError, with the name of what is wrong, unless every image has one label and every class an image."""
    if path.is_dir():
        files, folders = _walked(path)
        opened = functools.partial(in_folder, path)
        return Listing.of(path, *_labelled(path, files, folders, opened), opened)
    if path.suffix == ".npz":
        return list_arrays(path)
    if not zipfile.is_zipfile(path):
        raise unusable_file(path, "it is no folder, zip or npz of images")
    try:
        with zipfile.ZipFile(path) as archive:
            members, folders = _members(path, archive)
        opened = functools.partial(_in_zip, path, members)
        held = PICTURES + WORKERS * max((info.file_size for info in members.values()), default=0)
        return Listing.of(path, *_labelled(path, sorted(members), folders, opened), opened, held)
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # torn, encrypted, of another kind
        raise unusable_file(path, f"it is no readable zip ({reason(error)})") from error


@contextmanager
def in_folder(root: Path) -> Iterator[Files]:
    """For `Listing.opened`: files under `root`."""

    def read(name: str) -> IO[bytes]:
        if not (root / name).is_file():
            raise FileNotFoundError("a link to nothing, or no ordinary file" if os.path.lexists(root / name) else "is not there")
        return (root / name).open("rb")

    yield read


@contextmanager
def _in_zip(path: Path, members: dict[str, zipfile.ZipInfo]) -> Iterator[Files]:
    with zipfile.ZipFile(path) as archive:
        yield lambda name: io.BytesIO(archive.read(members[name]))  # whole, so that damage is seen


def _walked(root: Path) -> tuple[list[str], set[str]]:
    """Names of all files, sorted, and of the folders right under `root`. Links are followed; hidden folders are not entered."""

    def refuse(error: OSError) -> None:
        raise unusable_file(root, f"{error.filename} cannot be listed ({error.strerror})")

    files: list[str] = []
    top: set[str] = set()
    seen: dict[str, str] = {}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        first = seen.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            raise unusable_file(root, f"{folder} is a link to a folder that is there as {first} already")
        folders[:] = sorted(name for name in folders if not _hidden(name))
        if Path(folder) == root:
            top = set(folders)
        files += [Path(folder, name).relative_to(root).as_posix() for name in names]
    return sorted(files), top


def _members(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], set[str]]:
    """Files by name, and the names of the folders that no folder is around."""
    members: dict[str, zipfile.ZipInfo] = {}
    top: set[str] = set()
    for info in archive.infolist():
        name = PurePosixPath(info.filename.replace("\\", "/"))
        folder = info.filename.endswith("/")
        if not name.parts and not folder:
            raise unusable_file(path, f"it holds {info.filename!r}, which is no name of a file")
        if name.is_absolute() or ".." in name.parts or any(":" in part for part in name.parts[:1]):
            raise unusable_file(path, f"it holds {info.filename!r}, a name outside the archive")
        if folder:
            top |= {part for part in name.parts[:1] if not _hidden(part)}
        elif name.as_posix() in members:
            raise unusable_file(path, f"it holds {name} twice")
        elif info.file_size > 4 * MAX_PIXELS:
            raise unusable_file(path, f"{name} unpacks to {info.file_size:,} bytes")
        else:
            members[name.as_posix()] = info
    return members, top


def _labelled(where: Path, files: list[str], folders: set[str], opened: Callable[[], AbstractContextManager[Files]]) -> Labelled:
    """From `dataset.json` where there is one, else from the folder that a file is in."""
    if "dataset.json" in files:
        with opened() as read:
            return _from_json(where, files, read)
    images = [name for name in files if not any(map(_hidden, PurePosixPath(name).parts))]
    if wrong := next((name for name in images if len(PurePosixPath(name).parts) != 2), None):
        raise unusable_file(where, f"{wrong} is not in a class folder, and there is no dataset.json")
    labels = [PurePosixPath(name).parts[0] for name in images]
    classes = sorted({*labels, *folders})
    number = {name: label for label, name in enumerate(classes)}
    return classes, images, [number[name] for name in labels]


def _from_json(where: Path, files: list[str], read: Files) -> Labelled:
    """EDM's `{"labels": [["00000/img00000000.png", 6], …]}`, perhaps with `classes`, the names of 0, 1, …"""
    try:
        with read("dataset.json") as file:
            document = json.load(file)
        pairs = document["labels"]
        names, labels = [str(name) for name, _ in pairs or []], [label for _, label in pairs or []]
    except Exception as error:  # a foreign file may make anything of its reader
        raise unusable_file(where, f"dataset.json has no list of names and labels under `labels` ({reason(error)})") from error
    if pairs is None:
        raise unusable_file(where, "dataset.json has no labels; give every image one, 0 for a single class")
    images = {name for name in files if name != "dataset.json" and not _hidden(PurePosixPath(name).name)}
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise unusable_file(where, f"{repeated} has two labels in dataset.json")
    if missing := next((name for name in names if name not in images), None):
        raise unusable_file(where, f"{missing} is in dataset.json, and not among the files")
    if without := min(images - set(names), default=None):
        raise unusable_file(where, f"{without} has no label in dataset.json")
    if wrong := next((f"{n}: {y}" for n, y in zip(names, labels, strict=True) if type(y) is not int or y < 0), None):
        raise unusable_file(where, f"dataset.json has a label that is no class number: {wrong}")
    order = sorted(range(len(names)), key=names.__getitem__)
    return _class_names(where, document, max(labels, default=-1) + 1), [names[i] for i in order], [labels[i] for i in order]


def _class_names(where: Path, document: dict[str, Any], count: int) -> list[str] | range:
    """Numbers, where `dataset.json` names none."""
    names = document.get("classes")
    if names is None:
        return range(count)
    known = isinstance(names, list) and all(type(name) is str for name in names) and len({*names}) == len(names) == count
    if not known:
        raise unusable_file(where, f"dataset.json has `classes` that are no {count} different names")
    return names


def _hidden(part: str) -> bool:
    return part.startswith((".", "__MACOSX"))
