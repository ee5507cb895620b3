"""Settings as plain dictionaries: by one key each, and as they may leave this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import Any

# Settings that name files or folders.
PLACES = ("path", "cache", "pretrained", "features", "inception", "clip", "signing_key")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The keys in which flat settings differ, in order; one that is not there is as null."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]


def telling(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Some of these keys, which tell apart all settings that differ: names of choices before numbers, none that adds nothing."""
    chosen: list[str] = []
    parts = 1
    for key in sorted(differing(settings), key=lambda key: not any(isinstance(one.get(key), str) for one in settings)):
        finer = len({tuple(str(one.get(name)) for name in (*chosen, key)) for one in settings})
        if finer > parts:
            chosen, parts = [*chosen, key], finer
    return chosen


def without_places(value: Any, key: str = "") -> Any:
    """Settings as they may leave this machine: of a path no more than its last name.

    A string is a path where its key is one of `PLACES` or ends in `_path`, where it begins at a root or a home, or where it
    exists here.
    """
    if isinstance(value, dict):
        return {name: without_places(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    path = PureWindowsPath(value)  # which takes both kinds of slashes
    named = key in PLACES or key.endswith("_path")
    rooted = bool(path.root or path.drive) or value.startswith("~")
    return path.name if named or rooted or os.path.exists(value) else value
