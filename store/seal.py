"""The certificate of a release names every file beside it, so that anyone can tell whether they are the ones it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disk import digests, write_json
from privacy.accounting import versions
from privacy.inherited import CERTIFICATE
from tracking.environment import program_version


def seal(folder: Path, document: dict[str, Any]) -> None:
    """Write the certificate, last of all: with the sha256 of every other file, and with the versions that made them."""
    made_by = {"program_version": program_version(), "accounting": versions()}
    write_json(folder / CERTIFICATE, {**document, **made_by, "files": digests(folder)})


def altered(folder: Path, document: dict[str, Any]) -> list[str]:
    """What is wrong with the files of a release, a clause each; empty where they are those that its certificate names."""
    stated, found = document["files"], digests(folder)
    found.pop(CERTIFICATE, None)
    changes = [(name, stated.get(name), found.get(name)) for name in sorted({*stated, *found})]
    return [
        f"{name} {'was added' if before is None else 'is missing' if now is None else 'was changed'}"
        for name, before, now in changes
        if before != now
    ]
