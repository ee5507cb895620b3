"""Bad input: one line that names the key, the value and what is allowed; exit status 2; before any work."""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """What the user asked for cannot be done; the message is the one line they see."""


def require(condition: bool, key: str, value: Any, allowed: str) -> None:
    if not condition:
        raise InputError(f"{key}={shown(value)}: {allowed}")


def shown(value: Any) -> str:
    """A setting as users write it."""
    return "null" if value is None else str(getattr(value, "value", value))
