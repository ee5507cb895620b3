"""scripts.evaluate on a folder of shards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data.datasets.digits import handwritten
from data.samples import SampleSet
from scripts import evaluate

FAST = ["device=cpu", "eval.downstream.classifier=cnn", "eval.downstream.steps=3", "eval.downstream.batch_size=16"]


@pytest.fixture
def folder(tmp_path):
    images, labels = handwritten("private")
    (tmp_path / "more_samples").mkdir()
    for number in range(3):
        rows = slice(40 * number, 40 * number + 40)
        SampleSet(images[rows], labels[rows], 10).save(tmp_path / "more_samples" / f"samples_{number:05d}.npz")
    return tmp_path / "more_samples"


def test_a_folder_of_shards_is_judged_beside_it_and_sizes_too(folder, capsys):
    evaluate.main([f"release={folder}", *FAST, "eval.frechet.enabled=false", "eval.downstream.sizes=[50]"])
    numbers = json.loads((folder.parent / "internal" / "more_samples_judged" / "metrics.json").read_text())
    assert list(numbers) == [
        "cnn/accuracy", "cnn/accuracy_spread", "cnn/accuracy_seeds", "cnn/balanced_accuracy", "cnn/balanced_accuracy_spread",
        "cnn/accuracy_at=50", "cnn/accuracy_spread_at=50", "cnn/balanced_accuracy_at=50", "cnn/balanced_accuracy_spread_at=50",
    ]  # fmt: skip
    assert "cnn/accuracy_at=50" in capsys.readouterr().out


def test_a_distance_is_the_same_as_of_one_file(folder, tmp_path):
    pixels = [*FAST, "eval.downstream.enabled=false", "eval.frechet.embedding=pixels"]
    parts = [SampleSet.load(path) for path in sorted(folder.glob("*.npz"))]
    whole = SampleSet(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]), 10)
    whole.save(tmp_path / "whole.npz")
    for release, out in ((folder, "a"), (tmp_path / "whole.npz", "b")):
        evaluate.main([f"release={release}", *pixels, f"out={tmp_path / out}"])
    one, two = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in "ab")
    assert one == two


def test_of_several_processes_the_first_alone_judges(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    evaluate.main([f"release={folder}", *FAST])
    assert not (folder.parent / "internal").exists()
