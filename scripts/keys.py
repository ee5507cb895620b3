"""Every key of a run, from the typed schema: docs/reference.md.

    python -m scripts.keys                  # writes it again
    python -m scripts.keys out=FILE

A key's meaning is the comment beside its field, or above it, in the component's source; its default is the field's. What a file
of conf/ sets instead is said there.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from conf.help import run_script
from conf.schema import COMPONENTS
from disk import write_whole
from pipeline.config import Config

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Every key

`python run.py key=value …` sets any of these, and `--cfg job` prints what a run is composed of. Keys that several components
have in common stand once. What an option sets instead of a default is in its file of `conf/`. This page is written from the
source, by `python -m scripts.keys`.
"""
GROUPS = {
    "dataset": "Datasets",
    "method": "Methods",
    "model": "Public models",
    "privacy": "Privacy",
    "eval": "Evaluation",
    "tracker": "Trackers",
}


@dataclass(frozen=True)
class Key:
    """One setting: `name` below its group, such as `warm_up.epsilon`."""

    name: str
    kind: str
    default: str
    meaning: str


@dataclass
class Writing:
    out: str = str(PAGE)


def main(arguments: list[str]) -> None:
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Writing), OmegaConf.from_cli(arguments)))
    write_whole(Path(settings.out), page())
    print(settings.out)


def page() -> str:
    parts = [HEAD, "## A run\n", _table("", [key for key in keys(Config) if "." not in key.name and key.name not in COMPONENTS])]
    for group, options in COMPONENTS.items():
        parts.append(f"## {GROUPS[group]}\n")
        parts += [_section(group, heading, found) for heading, found in _sections(options)]
    return "\n".join(parts).rstrip() + "\n"


def keys(component: type[Any], prefix: str = "") -> Iterator[Key]:
    """Of a component and of the components in it, in the order of their fields."""
    kinds, meanings = get_type_hints(component), meanings_of(component)
    for one in fields(component):
        kind, name = kinds[one.name], f"{prefix}{one.name}"
        if is_dataclass(kind):
            yield from keys(kind, f"{name}.")  # type: ignore[arg-type]
        else:
            yield Key(name, _kind(kind), _default(one), meanings.get(one.name, ""))


def meanings_of(component: type[Any]) -> dict[str, str]:
    """The comments of all fields: behind a field, or on the lines above it, of the class or of what it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed([cls for cls in component.__mro__ if is_dataclass(cls)]):
        source = inspect.getsource(cls)
        lines = source.splitlines()
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                told = _comment(lines, node.lineno - 1, (node.end_lineno or node.lineno) - 1)
                if told:
                    found[node.target.id] = told
    return found


def _comment(lines: list[str], first: int, last: int) -> str:
    behind = [line.split("  # ", 1)[1] for line in lines[first : last + 1] if "  # " in line]
    above: list[str] = []
    while not behind and lines[first - 1].strip().startswith("# "):
        first -= 1
        above.insert(0, lines[first].strip().removeprefix("# "))
    return " ".join(behind or above)


def _sections(options: dict[str, Any]) -> Iterator[tuple[str, list[Key]]]:
    """What all options have in common first, then each option's own keys."""
    every = {name: list(keys(cls)) for name, cls in options.items()}
    if len(every) == 1:
        yield "", next(iter(every.values()))
        return
    first, *others = every.values()
    common = [key for key in first if key.name != "name" and all(key in found for found in others)]
    yield "All of them", common
    for name, found in every.items():
        own = [key for key in found if key not in common and key.name != "name"]
        yield f"`{name}`", own


def _section(group: str, heading: str, found: list[Key]) -> str:
    told = f"### {heading}\n\n" if heading else ""
    return told + (_table(f"{group}.", found) if found else "No further keys.\n")


def _table(prefix: str, found: list[Key]) -> str:
    rows = [f"| `{prefix}{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in found]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _kind(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _kind(one) for one in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_kind(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(kind.__name__, kind.__name__)


def _default(one: Field[Any]) -> str:
    value = one.default_factory() if one.default_factory is not MISSING else one.default
    if value is MISSING or value == "???":
        return ""
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return str(getattr(value, "value", value))


if __name__ == "__main__":
    run_script(main, __doc__)
