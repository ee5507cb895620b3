"""How images lie in a folder, a zip or tars: which of them are private, which are for tests, and what their classes are.

What is understood, in this order: `train` beside `test` or `val`; `dataset.json` of StyleGAN and EDM; a table of labels
(`data.tables`); shards of WebDataset (`data.webdataset`); class folders, with folders below them or not; images without a folder,
which are one class. Other files are left out, and counted. Nothing but tables is opened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data.arrays import array_splits
from data.decoding import ENDINGS, Listing
from data.files import Tree, tar_tree, tree_of
from data.parquet import parquet_splits
from data.tables import TABLES, Columns, in_order, matched, read_rows
from data.webdataset import is_sharded, list_shards
from errors import reason, unusable_file

TRAIN = ("train", "training")
TEST = ("test", "testing")
VALIDATION = ("val", "valid", "validation", "dev")
ONE_CLASS = "images"  # where nothing says what an image shows


@dataclass(frozen=True)
class Layout:
    """What was found at a place. `notes` are sentences for the terminal of the person whose images they are."""

    private: Listing
    test: Listing | None  # of the place's own test or validation folder
    kind: str  # in words
    notes: list[str] = field(default_factory=list)


def layout_of(path: Path, columns: Columns = Columns()) -> Layout:  # noqa: B008 (it is frozen)
    """InputError, with the name of what is wrong, unless every image has one label and every class an image."""
    if path.suffix == ".npz":
        return _split(path, array_splits(path), "arrays in an npz")
    tree = None if path.suffix == ".parquet" else tree_of(path)
    notes: list[str] = []
    tables = [path] if tree is None else [path / name for name in tree.names if path.is_dir() and name.endswith(".parquet")]
    if tree is None or tables:
        return _split(path, parquet_splits(path, tables, columns), "Parquet as the library datasets writes it")
    if path.is_dir() and (tars := [path / name for name in tree.names if name.endswith(".tar")]):
        tree = tar_tree(path, tars)
    elif not path.is_dir():
        tree, notes = _without_a_folder_around(tree)
    layout = _of_tree(tree, columns)
    return replace(layout, notes=[*notes, *layout.notes])


def list_images(path: Path, columns: Columns = Columns()) -> Listing:  # noqa: B008
    """The images at a place that holds one part alone, or the training part of one that holds several."""
    return layout_of(path, columns).private


def _split(path: Path, parts: dict[str, Listing], kind: str) -> Layout:
    """`parts` by name: what is private, what is for tests."""
    test = next((parts[name] for name in (*TEST, *VALIDATION) if name in parts), None)
    private = next((parts[name] for name in TRAIN if name in parts), None)
    if private is None:
        raise unusable_file(path, f"it has {', '.join(parts)} and no {TRAIN[0]}")
    unused = [name for name, part in parts.items() if part is not private and part is not test]
    return Layout(private, test, kind, [f"{name} is not used" for name in unused])


def _of_tree(tree: Tree, columns: Columns) -> Layout:
    top = {PurePosixPath(name).parts[0] for name in [*tree.names, *tree.folders] if "/" in name or name in tree.folders}
    parts = {name.lower(): name for name in top}
    ours = next((parts[name] for name in TRAIN if name in parts), None)
    if ours is None or not set(parts) <= {*TRAIN, *TEST, *VALIDATION}:
        listing, kind, notes = _labelled(tree, columns)
        return Layout(listing, None, kind, notes)
    theirs = next((parts[name] for name in (*TEST, *VALIDATION) if name in parts), None)
    private, kind, notes = _labelled(tree.below(ours), columns, f"{ours}/")
    test = None if theirs is None else _labelled(tree.below(theirs), columns, f"{theirs}/")[0]
    if test is not None and test.classes != private.classes:
        raise unusable_file(
            tree.where, f"{theirs} has the classes {', '.join(test.classes)}, and {ours} {', '.join(private.classes)}"
        )
    unused = sorted(top - {ours, theirs})
    kind = f"{ours}{'' if theirs is None else f' and {theirs}'}, each with {kind}"
    return Layout(private, test, kind, [*notes, *(f"{name} is not used" for name in unused)])


def _without_a_folder_around(tree: Tree) -> tuple[Tree, list[str]]:
    """An archive's one top folder, with the folders or the table of labels in it, is its name and no class."""
    notes: list[str] = []
    while True:
        top = {name.partition("/")[0] for name in [*tree.names, *tree.folders]}
        if len(top) != 1 or not tree.names:
            return tree, notes
        (folder,) = top
        inner = tree.below(folder)
        described = any(name in inner.names for name in (*TABLES, "dataset.json"))
        if not described and not any("/" in name for name in inner.names):
            return tree, notes
        tree = inner
        notes.append(f"everything lies in {folder}, which is taken for no class")


def _labelled(tree: Tree, columns: Columns, part: str = "") -> tuple[Listing, str, list[str]]:
    """A listing, what kind it is, and notes. `part` is before every name that is shown."""
    if "dataset.json" in tree.names:
        classes, names, labels = _from_json(tree)
        return _listing(tree, classes, names, labels), "labels in dataset.json", []
    images, notes = _images_of(tree)
    if is_sharded(tree.names):
        return list_shards(tree, images), "shards of WebDataset", []
    if table := next((name for name in TABLES if name in tree.names), None):
        rows = matched(tree.where, table, read_rows(tree.where, table, tree.text(table), columns), images)
        names, texts = [name for name, _ in rows], [row.label for _, row in rows]
        classes = in_order(set(texts))
        users = [row.user or "" for _, row in rows] if columns.user else None
        number = {name: label for label, name in enumerate(classes)}
        listing = _listing(tree, classes, names, [number[text] for text in texts], users)
        return listing, f"labels in {table}", notes
    loose = [name for name in images if "/" not in name]
    if loose and len(loose) == len(images):
        return _listing(tree, [ONE_CLASS], images, [0] * len(images)), "images of one class", notes
    if loose:
        raise unusable_file(tree.where, f"{part}{loose[0]} lies beside the class folders, so that its class is unknown")
    of = [PurePosixPath(name).parts[0] for name in images]
    empty = {name for name in tree.folders if "/" not in name and not any(other.startswith(f"{name}/") for other in tree.names)}
    classes = sorted({*of, *empty})
    number = {name: label for label, name in enumerate(classes)}
    deep = any(name.count("/") > 1 for name in images)
    kind = "class folders with folders in them" if deep else "class folders"
    return _listing(tree, classes, images, [number[name] for name in of]), kind, notes


def _images_of(tree: Tree) -> tuple[list[str], list[str]]:
    """Files that are images by the ending of their names, and a note on the others."""
    images = [name for name in tree.names if PurePosixPath(name).suffix.lower() in ENDINGS]
    if not images and tree.names and not any(PurePosixPath(name).suffix for name in tree.names):
        return tree.names, []  # archives of X-rays give files no ending
    others = Counter(
        PurePosixPath(name).suffix.lower() or "without an ending"
        for name in tree.names
        if PurePosixPath(name).suffix.lower() not in ENDINGS and name not in TABLES
    )
    if not others:
        return images, []
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
    return images, [f"files that are no images are left out: {kinds}"]


def _listing(
    tree: Tree, classes: Sequence[str] | range, names: list[str], labels: list[int], users: list[str] | None = None
) -> Listing:
    return Listing.of(tree.where, classes, names, labels, tree.opened, tree.decoding_bytes, users)


def _from_json(tree: Tree) -> tuple[list[str] | range, list[str], list[int]]:
    """EDM's `{"labels": [["00000/img00000000.png", 6], …]}`, perhaps with `classes`, the names of 0, 1, …"""
    where = tree.where
    try:
        document = json.loads(tree.text("dataset.json"))
        pairs = document["labels"]
        names, labels = [str(name) for name, _ in pairs or []], [label for _, label in pairs or []]
    except Exception as error:  # a foreign file may make anything of its reader
        raise unusable_file(where, f"dataset.json has no list of names and labels under `labels` ({reason(error)})") from error
    if pairs is None:
        raise unusable_file(where, "dataset.json has no labels; give every image one, 0 for a single class")
    images = {name for name in tree.names if name != "dataset.json"}
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise unusable_file(where, f"{repeated} has two labels in dataset.json")
    if missing := next((name for name in names if name not in images), None):
        raise unusable_file(where, f"{missing} is in dataset.json, and not among the files")
    others = {name for name in images - set(names) if PurePosixPath(name).suffix.lower() in ENDINGS}
    if without := min(others, default=None):
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
