"""Bad input: one sentence that names the key, the value and what is allowed; exit status 2; before any work."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """What the user asked for cannot be done; the message is the one line they see.

    `key` is the setting that it is about and `value` what users wrote there; None where it is about no setting.
    """

    def __init__(self, message: str, key: str | None = None, value: str | None = None):
        super().__init__(message)
        self.key, self.value = key, value


def require(condition: bool, key: str, value: Any, allowed: str) -> None:
    """`allowed` completes "must be …": "1 or more", "one of a, b", "null, as … is set"."""
    if not condition:
        raise InputError(f"{key} must be {allowed}, not {format_value(value)}.", key, format_value(value))


def reject_unless(condition: bool, key: str, value: Any, problem: str) -> None:
    """For what no list of allowed values says. `problem` is a clause of its own: "it holds no image that can be read"."""
    if not condition:
        raise unusable(key, value, problem)


def unusable(key: str, value: Any, problem: str) -> InputError:
    """The error of `reject_unless`, for an `except`."""
    return InputError(f"{key}={format_value(value)} cannot be used: {problem.removesuffix('.')}.", key, format_value(value))


def unusable_file(path: Path, problem: str) -> InputError:
    """About a file of the user's, where the setting that leads to it is not known."""
    return InputError(f"{path} cannot be used: {problem.removesuffix('.')}.")


@contextmanager
def naming(key: str, value: Any) -> Iterator[None]:
    """A ValueError about what a setting leads to becomes an InputError that names it."""
    try:
        yield
    except InputError:  # names one already
        raise
    except ValueError as error:
        raise unusable(key, value, reason(error)) from error


def reason(error: BaseException) -> str:
    """What an error of foreign code, or of a reader of foreign files, says, in one line."""
    return textwrap.shorten(str(error), 300, placeholder=" …") or type(error).__name__


def format_value(value: Any) -> str:
    """A setting as users write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(getattr(value, "value", value))
