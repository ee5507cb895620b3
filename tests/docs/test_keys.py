"""docs/reference.md: every key of every component, as the source has it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from conf.schema import COMPONENTS
from pipeline.config import Config
from scripts import keys


def test_the_page_is_what_the_source_says():
    assert keys.PAGE.read_text() == keys.page(), "python -m scripts.keys writes it again"


@pytest.mark.parametrize("component", [cls for options in COMPONENTS.values() for cls in options.values()])
def test_every_key_has_a_meaning(component):
    found = list(keys.keys(component))
    assert [key.name for key in found if not key.meaning and key.name != "name"] == []


def test_every_component_of_a_run_is_a_group_of_the_page():
    assert set(keys.GROUPS) == set(COMPONENTS) <= {key.name.split(".")[0] for key in keys.keys(Config)}


@dataclass(kw_only=True)
class Inner:
    rate: float = 0.5  # of it


@dataclass(kw_only=True)
class Base:
    size: int = 1  # of the base
    # how many there are,
    # in all
    count: int | None = None


@dataclass(kw_only=True)
class Derived(Base):
    size: int = 2
    inner: Inner = field(default_factory=Inner)
    names: list[str] = field(default_factory=lambda: ["a", "b"])  # of them


def test_a_meaning_is_the_comment_beside_a_field_or_above_it_and_is_inherited():
    found = {key.name: (key.kind, key.default, key.meaning) for key in keys.keys(Derived)}
    assert found == {
        "size": ("whole number", "`2`", "of the base"),
        "count": ("whole number or null", "`null`", "how many there are, in all"),
        "inner.rate": ("number", "`0.5`", "of it"),
        "names": ("list of text", "`[a,b]`", "of them"),
    }
