"""The certificate of a release names every file beside it, so that anyone can tell whether they are the ones it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disk import digests, whole_file, write_json
from privacy.accounting import versions
from privacy.inherited import CERTIFICATE
from privacy.signing import SIGNATURE, sign
from tracking.environment import program_version


def seal(folder: Path, document: dict[str, Any], signing_key: str | None = None) -> None:
    """Write the certificate, last of all: with the sha256 of every other file, and with the versions that made them.

    `signing_key`: a file with the key that signs it; nothing else of that file is used.
    """
    made_by = {"program_version": program_version(), "accounting": versions()}
    write_json(folder / CERTIFICATE, {**document, **made_by, "files": sealed(folder)})
    if signing_key is not None:
        add_signature(folder, "privacy.signing_key", signing_key)


def add_signature(folder: Path, setting: str, key_file: str) -> None:
    """Of the certificate as it is, beside it. InputError, which names the setting, where the file holds no key that signs."""
    signature = sign(setting, key_file, (folder / CERTIFICATE).read_bytes())
    with whole_file(folder / SIGNATURE) as file:
        file.write(signature)


def altered(folder: Path, document: dict[str, Any]) -> list[str]:
    """What is wrong with the files of a release, a clause each; empty where they are those that its certificate names."""
    stated, found = document["files"], sealed(folder)
    changes = [(name, stated.get(name), found.get(name)) for name in sorted({*stated, *found})]
    return [
        f"{name} {'was added' if before is None else 'is missing' if now is None else 'was changed'}"
        for name, before, now in changes
        if before != now
    ]


def sealed(folder: Path) -> dict[str, str]:
    """The digests of all files that a certificate names: all but itself and its signature."""
    return {name: digest for name, digest in digests(folder).items() if name not in (CERTIFICATE, SIGNATURE)}
