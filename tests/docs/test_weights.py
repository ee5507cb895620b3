"""The weights that ship: models/weights/README.md names all of their files and no others, and they are small."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

WEIGHTS = Path(__file__).parents[2] / "models" / "weights"
MODELS = sorted(path for path in WEIGHTS.iterdir() if path.is_dir())


def test_the_sums_on_the_page_are_those_of_the_files():
    told = dict(re.findall(r"^\| `(\w+/\S+)` \| `([0-9a-f]{64})` \|", (WEIGHTS / "README.md").read_text(), re.MULTILINE))
    files = [path for path in WEIGHTS.rglob("*") if path.is_file() and path.name != "README.md"]
    assert told == {path.relative_to(WEIGHTS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.name)
def test_a_model_that_ships_is_below_three_megabytes(model):
    """A clone and a package carry it, whoever needs it."""
    assert 0 < sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) < 3_000_000
