"""What a certificate says of the files beside it: every change to one of them is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from store.seal import altered, seal

FILES = {"samples.npz": b"images", "grid.png": b"picture", "model/unet/config.json": b"{}"}


@pytest.fixture
def release(tmp_path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    seal(tmp_path, {"epsilon": 1.0})
    return tmp_path


def read(release: Path) -> dict:
    return json.loads((release / "privacy.json").read_text())


def test_a_certificate_names_every_other_file_and_the_versions_that_made_them(release):
    document = read(release)
    assert document["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert document["epsilon"] == 1.0
    assert document["program_version"].count(".") == 2
    assert document["accounting"].keys() == {"version", "dp-accounting", "opacus", "scipy"}
    assert altered(release, document) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "samples.npz").write_bytes(b"imagez"), "samples.npz was changed"),
        (lambda folder: (folder / "model/unet/config.json").unlink(), "model/unet/config.json is missing"),
        (lambda folder: (folder / "model/notes.txt").write_text("more"), "model/notes.txt was added"),
    ],
    ids=["changed", "missing", "added"],
)
def test_every_change_of_a_file_is_told(release, change: Callable[[Path], None], told):
    change(release)
    assert altered(release, read(release)) == [told]
