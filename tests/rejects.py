"""Refusals by the setting that they are about. How a sentence is worded is asserted in tests/test_errors.py alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from errors import InputError, format_value
from tests.command import Result

ANY: Any = object()


@contextmanager
def rejects(key: str | None, value: Any = ANY, *words: str) -> Iterator[None]:
    """An InputError of one line about this setting, and this value of it. `words` tell reasons apart."""
    with pytest.raises(InputError) as raised:
        yield
    error, line = raised.value, str(raised.value)
    assert error.key == key, line
    assert value is ANY or error.value == format_value(value), line
    assert "\n" not in line
    for word in words:
        assert word in line, line


def assert_refused(result: Result, setting: str, *words: str) -> None:
    """Exit status 2 and one line. `setting` is `key=value` or a key alone, which the line has to be about."""
    assert (result.code, result.out) == (2, ""), result.err
    assert_line(result.err, setting, *words)


def assert_line(line: str, setting: str, *words: str) -> None:
    """What a refusal prints."""
    assert line.startswith("error: "), line
    assert line.count("\n") == 1, line
    key, _, value = setting.partition("=")
    if value:
        allowed = line.startswith(f"error: {key} must be ") and line.endswith(f", not {value}.\n")
        assert allowed or line.startswith(f"error: {setting} cannot be used: "), line
    else:
        assert key in line
    for word in words:
        assert word in line, line
