"""The weights that ship with the code."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = Path(__file__).parent / "weights"  # one folder a name


def embedded_or(name: str) -> Path:
    """The folder of weights that ships under this name, or the folder of this path."""
    return EMBEDDED / name if (EMBEDDED / name).is_dir() else Path(name)
