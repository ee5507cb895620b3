from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # toy sizes gain nothing from more, and two processes that share cores stall each other


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
