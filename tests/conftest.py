from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.samples import SampleSet

torch.set_num_threads(1)  # toy sizes gain nothing from more, and two processes that share cores stall each other


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def like_cifar10(tmp_path_factory) -> Path:
    """An npz of 5,000 black images in ten classes."""
    path = tmp_path_factory.mktemp("like_cifar10") / "images.npz"
    SampleSet(np.zeros((5_000, 32, 32, 3), np.uint8), np.arange(5_000) % 10, num_classes=10).save(path)
    return path
