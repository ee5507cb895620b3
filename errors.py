"""Bad input: one line that names the key, the value and what is allowed; exit status 2; before any work."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """What the user asked for cannot be done; the message is the one line they see."""


def require(condition: bool, key: str, value: Any, allowed: str) -> None:
    if not condition:
        raise InputError(f"{key}={shown(value)}: {allowed}")


@contextmanager
def naming(key: str, value: Any) -> Iterator[None]:
    """A ValueError about what a setting leads to becomes an InputError that names it."""
    try:
        yield
    except InputError:  # names one already
        raise
    except ValueError as error:
        raise InputError(f"{key}={shown(value)}: {error}") from error


def reason(error: BaseException) -> str:
    """What an error of foreign code, or of a reader of foreign files, says, in one line."""
    return textwrap.shorten(str(error), 300, placeholder=" …") or type(error).__name__


def shown(value: Any) -> str:
    """A setting as users write it."""
    return "null" if value is None else str(getattr(value, "value", value))
