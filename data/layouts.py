"""How images lie in a folder, a zip or tars: which of them are private, which are for tests, and what their classes are.

What is understood, in this order: `train` beside `test` or `val`; `dataset.json` of StyleGAN and EDM; a table of labels
(`data.tables`); in tars, examples of WebDataset (`data.webdataset`); class folders, with folders below them or not; images
without a folder, which are one class. Other files are left out, and counted. Nothing but tables is opened.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data.arrays import array_splits
from data.decoding import ENDINGS, Listing
from data.files import Tree, tar_tree, tree_of
from data.parquet import parquet_splits
from data.parts import name_below, part_of_file, part_of_folder
from data.tables import TABLES, Columns, in_order, matched, read_rows
from data.webdataset import is_sharded, list_shards
from errors import reason, reject_unless, unusable_file

PARQUET = "Parquet as the library datasets writes it"
ONE_CLASS = "images"  # where nothing says what an image shows


@dataclass(frozen=True)
class Layout:
    """What was found at a place. `notes` are sentences for the terminal of the person whose images they are."""

    private: Listing
    test: Listing | None  # of the place's own test or validation folder
    kind: str  # in words
    notes: list[str] = field(default_factory=list)
    nameless: bool = False  # images are rows, whose names are numbers


def layout_of(path: Path, columns: Columns = Columns()) -> Layout:  # noqa: B008 (it is frozen)
    """InputError, with the name of what is wrong, unless every image has one label and every class an image."""
    if path.suffix == ".npz":
        return _split(path, array_splits(path), "arrays in an npz")
    if path.suffix == ".parquet":
        return _split(path, parquet_splits(path, [path], columns), PARQUET)
    tree = tree_of(path)
    if path.is_dir() and (shards := _shards_alone(tree, ".parquet")):
        return _split(path, parquet_splits(path, shards, columns), PARQUET)
    tars = [path] if path.suffix == ".tar" else _shards_alone(tree, ".tar") if path.is_dir() else []
    if tars:
        return _of_tars(path, tars, columns)
    tree, notes = (tree, []) if path.is_dir() else _without_a_folder_around(tree)
    layout = _of_tree(tree, columns)
    return replace(layout, notes=[*notes, *layout.notes])


def list_images(path: Path, columns: Columns = Columns()) -> Listing:  # noqa: B008
    """The images at a place that holds one part alone, or the training part of one that holds several."""
    return layout_of(path, columns).private


def _split(path: Path, parts: dict[str, Listing], kind: str) -> Layout:
    """`parts` by name: what is private, what is for tests. One alone is what was asked for, whatever it is called."""
    nameless = path.suffix == ".npz" or kind == PARQUET
    if len(parts) == 1:
        return Layout(next(iter(parts.values())), None, kind, nameless=nameless)
    if "train" not in parts:
        raise unusable_file(path, f"it has {' and '.join(parts)}, and no train")
    test = "test" if "test" in parts else "val"
    ours, theirs = parts["train"].classes, parts[test].classes
    if ours != theirs:
        raise unusable_file(path, f"its images for tests have the classes {', '.join(theirs)}, and the others {', '.join(ours)}")
    notes = [f"{name} is not used" for name in parts if name not in ("train", test)]
    return Layout(parts["train"], parts[test], kind, notes, nameless)


def _shards_alone(tree: Tree, ending: str) -> list[Path]:
    """Files of a folder with this ending; InputError where images lie beside them, as one or the other would be left out."""
    shards = [name for name in tree.names if name.endswith(ending)]
    if shards and (image := next((name for name in tree.names if _is_image(name)), None)):
        raise unusable_file(tree.where, f"it holds {shards[0]} beside images such as {image}; give one of the two")
    return [tree.where / name for name in shards]


def _of_tars(path: Path, tars: list[Path], columns: Columns) -> Layout:
    by_part: dict[str, list[Path]] = defaultdict(list)
    for tar in tars:
        by_part[part_of_file(name_below(path, tar)) or "train"].append(tar)
    if len(by_part) == 1:
        tree = tar_tree(path, tars)
        if not is_sharded(tree.names):
            tree, notes = _without_a_folder_around(tree)
            layout = _of_tree(tree, columns)
            return replace(layout, notes=[*notes, *layout.notes])
    found = {part: _labelled(tar_tree(path, files), columns) for part, files in by_part.items()}
    return _split(path, {part: listing for part, (listing, _, _) in found.items()}, next(iter(found.values()))[1])


def _of_tree(tree: Tree, columns: Columns) -> Layout:
    """A folder with the name of a part is one, and no class."""
    top = {name.partition("/")[0] for name in [*(n for n in tree.names if "/" in n), *tree.folders]}
    folders = {part: sorted(name for name in top if part_of_folder(name) == part) for part in ("train", "test", "val")}
    folders = {part: names for part, names in folders.items() if names}
    named = [name for names in folders.values() for name in names]
    if not named:
        listing, kind, notes = _labelled(tree, columns)
        return Layout(listing, None, kind, notes)
    for names in folders.values():
        if len(names) > 1:
            raise unusable_file(tree.where, f"it has {' and '.join(names)}, and which is meant is unknown")
    holding = {name.partition("/")[0] if "/" in name else name for name in tree.names if _is_image(name) or name in TABLES}
    if other := min(holding - set(named), default=None):
        parts = "dataset.path and dataset.test_path can name the parts"
        raise unusable_file(tree.where, f"it has {other} beside {named[0]}; {parts}")
    found = {part: _labelled(tree.below(name), columns, f"{name}/") for part, (name,) in folders.items()}
    layout = _split(tree.where, {part: listing for part, (listing, _, _) in found.items()}, "")
    first = "train" if "train" in found else next(iter(found))
    return replace(layout, kind=f"{' and '.join(named)}, with {found[first][1]}", notes=[*found[first][2], *layout.notes])


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
    if table := next((name for name in TABLES if name in tree.names), None):
        rows = matched(tree.where, table, read_rows(tree.where, table, tree.text(table), columns), images)
        names, texts = [name for name, _ in rows], [row.label for _, row in rows]
        classes = in_order(set(texts))
        users = [row.user or "" for _, row in rows] if columns.user else None
        number = {name: label for label, name in enumerate(classes)}
        listing = _listing(tree, classes, names, [number[text] for text in texts], users)
        known = ", ".join(f"column {column}" for column in (columns.label, columns.user) if column)
        return listing, f"labels in {table}" + (f" ({known})" if known else ""), notes
    for key, column in (("label", columns.label), ("file", columns.file), ("user", columns.user)):
        problem = f"{part or tree.where} has none of {', '.join(TABLES)}, whose column it would be"
        reject_unless(column is None, f"dataset.{key}_column", column, problem)
    if tree.shards and is_sharded(tree.names):
        return list_shards(tree, images), "shards of WebDataset", []
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
    images = [name for name in tree.names if _is_image(name)]
    if not images and tree.names and not any(PurePosixPath(name).suffix for name in tree.names):
        return tree.names, []  # archives of X-rays give files no ending
    others = Counter(
        PurePosixPath(name).suffix.lower() or "without an ending"
        for name in tree.names
        if not _is_image(name) and name not in TABLES
    )
    if not others:
        return images, []
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
    notes = [f"files that are no images are left out: {kinds}"]
    top = {name.partition("/")[0] for name in tree.names if "/" in name}
    if bare := sorted(top - {name.partition("/")[0] for name in images}):
        notes.append(f"folders without an image are no classes: {', '.join(bare)}")
    return images, notes


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ENDINGS


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
    if without := min(filter(_is_image, images - set(names)), default=None):
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
