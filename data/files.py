"""Files of a folder, a zip or tars, by name: what lies where, and how it is read. None is opened here."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from data.decoding import MAX_PIXELS, PICTURES, WORKERS
from data.parts import name_below
from errors import reason, unusable_file

Files = Callable[[str], IO[bytes]]


@dataclass(frozen=True)
class Tree:
    """Names of files, sorted, relative to `where`, with `/`; hidden ones are left out."""

    where: Path
    names: list[str]
    folders: set[str]  # that are there, empty ones too
    opened: Callable[[], AbstractContextManager[Files]]  # while it is entered, files can be read by their names
    decoding_bytes: int = PICTURES
    shards: bool = False  # of tars

    def below(self, folder: str) -> Tree:
        """What lies in a folder, by its names there."""
        start = f"{folder}/"
        return replace(
            self,
            names=[name.removeprefix(start) for name in self.names if name.startswith(start)],
            folders={name.removeprefix(start) for name in self.folders if name.startswith(start)},
            opened=functools.partial(_below, self.opened, start),
        )

    def text(self, name: str) -> str:
        """A small file of the user's, such as a table of labels. InputError where it is no text."""
        try:
            with self.opened() as read, read(name) as file:
                return file.read().decode("utf-8-sig")
        except Exception as error:  # a foreign file may make anything of its reader
            raise unusable_file(self.where, f"{name} cannot be read as text ({reason(error)})") from error


@contextmanager
def _below(opened: Callable[[], AbstractContextManager[Files]], start: str) -> Iterator[Files]:
    with opened() as read:
        yield lambda name: read(start + name)


def tree_of(path: Path) -> Tree:
    """InputError where it is neither a folder, nor a zip, nor a tar."""
    if path.is_dir():
        names, folders = _walked(path)
        return Tree(path, names, folders, functools.partial(in_folder, path))
    if path.suffix == ".tar":
        return tar_tree(path, [path])  # of a single name
    if not zipfile.is_zipfile(path):
        raise unusable_file(path, "it is no folder, zip, tar, npz or Parquet file of images")
    try:
        with zipfile.ZipFile(path) as archive:
            members, folders = _members(path, archive)
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # torn, encrypted, of another kind
        raise unusable_file(path, f"it is no readable zip ({reason(error)})") from error
    held = PICTURES + WORKERS * max((info.file_size for info in members.values()), default=0)
    return Tree(path, sorted(members), folders, functools.partial(_in_zip, path, members), held)


def hidden(name: str) -> bool:
    """Whether it, or a folder around it, is hidden."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


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
    try:
        with zipfile.ZipFile(path) as archive:
            yield lambda name: io.BytesIO(archive.read(members[name]))  # whole, so that damage is seen
    except zipfile.BadZipFile as error:
        raise unusable_file(path, f"it is no readable zip ({reason(error)})") from error


def _walked(root: Path) -> tuple[list[str], set[str]]:
    """Names of all files, sorted, and of all folders. Links are followed; hidden folders are not entered."""

    def refuse(error: OSError) -> None:
        raise unusable_file(root, f"{error.filename} cannot be listed ({error.strerror})")

    files: list[str] = []
    below: set[str] = set()
    seen: dict[str, str] = {}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        first = seen.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            raise unusable_file(root, f"{folder} is a link to a folder that is there as {first} already")
        folders[:] = sorted(name for name in folders if not hidden(name))
        below |= {Path(folder, name).relative_to(root).as_posix() for name in folders}
        files += [Path(folder, name).relative_to(root).as_posix() for name in names if not hidden(name)]
    return sorted(files), below


def _members(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], set[str]]:
    """Files by name, and the names of folders that the archive lists."""
    members: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for info in archive.infolist():
        name = PurePosixPath(info.filename.replace("\\", "/"))
        folder = info.filename.endswith("/")
        if not name.parts and not folder:
            raise unusable_file(path, f"it holds {info.filename!r}, which is no name of a file")
        if name.is_absolute() or ".." in name.parts or any(":" in part for part in name.parts[:1]):
            raise unusable_file(path, f"it holds {info.filename!r}, a name outside the archive")
        if hidden(name.as_posix()) or not name.parts:
            continue
        folders |= {parent.as_posix() for parent in name.parents if parent.parts} | ({name.as_posix()} if folder else set())
        if folder:
            continue
        if name.as_posix() in members:
            raise unusable_file(path, f"it holds {name} twice")
        if info.file_size > 4 * MAX_PIXELS:
            raise unusable_file(path, f"{name} unpacks to {info.file_size:,} bytes")
        members[name.as_posix()] = info
    return members, folders


@dataclass(frozen=True)
class _Span:
    """Where a member's bytes lie."""

    file: Path
    start: int
    size: int


def tar_tree(where: Path, files: list[Path]) -> Tree:
    """Members of uncompressed tars, read where they lie; in a folder of tars the tar's own name is before theirs."""
    spans: dict[str, _Span] = {}
    for file in files:
        try:
            with tarfile.open(file, "r:") as archive:
                found = [member for member in archive if member.isfile() and not hidden(member.name.removeprefix("./"))]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise unusable_file(file, f"it is no readable tar ({reason(error)}); compressed ones are to be unpacked") from error
        for member in found:
            name = member.name.removeprefix("./")
            name = name if file == where else f"{name_below(where, file).with_suffix('').as_posix()}/{name}"
            if name in spans:
                raise unusable_file(file, f"it holds {name} twice")
            if member.size > 4 * MAX_PIXELS:
                raise unusable_file(file, f"{name} has {member.size:,} bytes")
            spans[name] = _Span(file, member.offset_data, member.size)
    folders = {parent.as_posix() for name in spans for parent in PurePosixPath(name).parents if parent.parts}
    held = PICTURES + WORKERS * max((span.size for span in spans.values()), default=0)
    return Tree(where, sorted(spans), folders, functools.partial(_in_tars, spans), held, shards=True)


@contextmanager
def _in_tars(spans: dict[str, _Span]) -> Iterator[Files]:
    def read(name: str) -> IO[bytes]:
        span = spans[name]
        with span.file.open("rb") as file:
            file.seek(span.start)
            return io.BytesIO(file.read(span.size))

    yield read
