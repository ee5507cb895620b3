"""From a folder to a signed release: every command of docs/own-images.md as it is written, on made-up X-rays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import ROOT

PAGE = ROOT / "docs" / "own-images.md"


def block(heading: str) -> str:
    """The first indented block below a heading."""
    lines = PAGE.read_text().split(f"## {heading}\n", 1)[1].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("    "))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("    "))
    return "\n".join(line.removeprefix("    ") for line in lines[first:last])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the example makes its key with openssl")
def test_the_example_runs_as_it_is_written(tmp_path):
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("runs", "site"):
            (tmp_path / entry.name).symlink_to(entry)
    rng = np.random.default_rng(0)
    for name, level in (("normal", 90), ("pneumonia", 150)):
        (tmp_path / "xrays" / name).mkdir(parents=True)
        for i in range(300):
            image = np.clip(rng.normal(level, 30, (28, 28)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "xrays" / name / f"{i:03d}.png")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = f"set -e\n{block('From a folder to a signed release')}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "xrays" / "report.html").exists()
    assert (tmp_path / "runs" / "xrays" / "release" / "privacy.json.sig").exists()
    assert len(list((tmp_path / "xrays_synthetic").rglob("*.png"))) >= 1000
