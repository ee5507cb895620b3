"""models/weights/README.md names the files that ship, and no others."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

WEIGHTS = Path(__file__).parents[2] / "models" / "weights"


def test_the_sums_on_the_page_are_those_of_the_files():
    told = dict(re.findall(r"^\| `(digits/\S+)` \| `([0-9a-f]{64})` \|", (WEIGHTS / "README.md").read_text(), re.MULTILINE))
    files = [path for path in WEIGHTS.rglob("*") if path.is_file() and path.name != "README.md"]
    assert told == {path.relative_to(WEIGHTS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
