"""What makes two runs the same: the settings that differ from the defaults of their components.

A setting that is added with a default changes no identity, and a key that a stored configuration lacks counts as that default.
Where a default changes its meaning, the component raises its `version` (a class attribute, 1 where there is none).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

import yaml

from errors import format_value
from tracking.settings import flat

ASIDE = ("device", "tracker", "plan_only", "out")  # groups and keys that no result depends on
SIGNING = "privacy.signing_key"  # nor on this one
_UNSET = "???"  # what a schema has where a setting must be given


def plain(value: Any) -> Any:
    """A component as nested plain values, as config.yaml holds it: enums by name, `version` where it is not 1."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        version = getattr(value, "version", 1)
        return found if version == 1 else {**found, "version": version}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def defaults(component: Any) -> dict[str, Any]:
    """Flat, of the settings that have one."""
    return dict(_defaults(component, ""))


def _defaults(component: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield f"{prefix}version", 1
    for field in dataclasses.fields(component):
        value, key = getattr(component, field.name), f"{prefix}{field.name}"
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(value) and type(made) is not type(value):
            yield from _defaults(value, f"{key}.")
        elif dataclasses.is_dataclass(made):
            yield f"{key}.version", 1
            yield from flat(plain(made), f"{key}.").items()
        elif made is not dataclasses.MISSING and made != _UNSET:
            yield key, plain(made)


def settings(config: Any) -> dict[str, Any]:
    """Flat: those that differ from their defaults, and every component's name."""
    usual = defaults(config)
    return {
        key: value
        for key, value in flat(plain(config)).items()
        if not _aside(key) and (key not in usual or usual[key] != value or key.endswith(".name"))
    }


def digest(config: Any) -> str:
    """Of everything that a run's results depend on: 16 hexadecimal digits for its release, 8 for its evaluation."""
    chosen = settings(config)
    judging = {key: value for key, value in chosen.items() if release_ignores(key, chosen)}
    making = {key: value for key, value in chosen.items() if key not in judging}
    return f"{_hash(making)[:16]}-{_hash(judging)[:8]}"


def repeated(stored: dict[str, Any]) -> dict[str, Any]:
    """Flat, of a stored configuration: what runs that repeat each other with other seeds have in common."""
    return {key: value for key, value in flat(stored).items() if value is not None and key != "seed" and not _aside(key)}


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_numbers_alike(values), sort_keys=True).encode()).hexdigest()


def _numbers_alike(value: Any) -> Any:
    """10.0 as 10: a configuration that was composed and one that was read back may differ so."""
    if isinstance(value, dict):
        return {key: _numbers_alike(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers_alike(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def difference(stored: str, config: Any, also_evaluation: bool = False) -> str | None:
    """The first key in which a stored configuration makes another release than this one; or is another run, if asked."""
    try:
        before = flat(yaml.safe_load(stored))
    except (AttributeError, yaml.YAMLError):
        return "its config.yaml is of another program"
    usual, now = defaults(config), flat(plain(config))
    # The budget first, as other settings may follow from it.
    for key in sorted({*before, *now}, key=lambda key: (not key.startswith("privacy."), key)):
        then, here = (values.get(key, usual.get(key)) for values in (before, now))
        ignored = _aside(key) if also_evaluation else release_ignores(key, now)
        if then != here and not ignored:
            return f"{key}: {format_value(then)} before, {format_value(here)} now"
    return None


def release_ignores(key: str, chosen: dict[str, Any]) -> bool:
    """Whether no release depends on this key of the flat settings."""
    chooses = chosen.get("privacy.selection_epsilon") is not None or "selection.name" in chosen
    selects = chooses and key.startswith("eval.downstream.")
    return (_aside(key) or key.split(".")[0] == "eval") and not selects


def _aside(key: str) -> bool:
    """Whether no result depends on this key."""
    return key.split(".")[0] in ASIDE or key == SIGNING
