"""Shards of WebDataset: in tars, files of one example share their name up to its first dot: `0001.jpg`, `0001.cls`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from data.decoding import Listing
from data.files import Tree
from data.tables import USUAL_LABELS, in_order
from errors import reason, unusable_file

LABELS = (".cls", ".json")


def key_of(name: str) -> str:
    """Up to the first dot of its last part."""
    path = PurePosixPath(name)
    return (path.parent / path.name.partition(".")[0]).as_posix()


def is_sharded(names: Sequence[str]) -> bool:
    """Whether a label lies beside every image or so: at least one `.cls`, or a `.json` for each of several keys."""
    return any(name.endswith(".cls") for name in names) or sum(name.endswith(".json") for name in names) > 1


def list_shards(tree: Tree, images: list[str]) -> Listing:
    """InputError names the image without a label."""
    beside = {key_of(name): name for end in reversed(LABELS) for name in tree.names if name.endswith(end)}  # .cls before .json
    labels: list[str] = []
    with tree.opened() as read:
        for name in images:
            label = beside.get(key_of(name))
            if label is None:
                raise unusable_file(tree.where, f"{name} has no .cls or .json beside it")
            try:
                with read(label) as file:
                    labels.append(_label(label, file.read()))
            except Exception as error:  # a foreign file may make anything of its reader
                raise unusable_file(tree.where, f"{label} holds no label ({reason(error)})") from error
    classes = in_order(set(labels))
    number = {name: at for at, name in enumerate(classes)}
    found = range(int(classes[-1]) + 1) if classes and all(name.isdecimal() for name in classes) else classes
    numbers = [int(text) if isinstance(found, range) else number[text] for text in labels]
    return Listing.of(tree.where, found, images, numbers, tree.opened, tree.decoding_bytes)


def _label(name: str, content: bytes) -> str:
    if name.endswith(".cls"):
        return str(int(content))
    document = json.loads(content)
    value = next((document[key] for key in USUAL_LABELS if key in document), None)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError(f"none of {', '.join(USUAL_LABELS)} is a number or a text")
    return str(value)
