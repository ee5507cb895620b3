"""scripts.evaluate on a folder of shards, and on the release of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from data.datasets.digits import handwritten
from data.samples import SampleSet
from models.classifiers.networks import ClassifierName
from scripts import evaluate
from store.identity import plain
from tests.command import typed
from tests.data.test_folder import class_folders
from tests.rejects import rejects

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


@pytest.mark.parametrize("judge", ["eval=none", "eval.downstream.steps=7"])
def test_a_release_is_judged_on_the_images_of_its_run_and_as_there(judge, tmp_path):
    images = class_folders(tmp_path / "mine", 40)
    config = typed("dataset=folder", f"dataset.path={images}", "dataset.image_size=8", "seed=5", judge)
    (tmp_path / "run" / "release").mkdir(parents=True)
    (tmp_path / "run" / "internal").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    settings = evaluate._settings([f"release={tmp_path / 'run' / 'release'}"])
    assert (settings.dataset, settings.model) == (config.dataset, config.model)
    assert settings.eval.downstream.classifier is ClassifierName.lenet
    assert (settings.eval == config.eval) == (judge != "eval=none")
    assert settings.seed == config.seed == 5
    settings = evaluate._settings([f"release={tmp_path / 'run' / 'release'}", "eval.downstream.batch_size=16", "seed=2"])
    assert (settings.eval.downstream.batch_size, settings.eval.downstream.classifier.value, settings.seed) == (16, "lenet", 2)


@pytest.mark.parametrize("text", ["", "[1]", "dataset: digits", "site_name: x"])
def test_a_configuration_that_is_none_is_refused_in_one_line_and_beside_other_files_not_looked_at(text, tmp_path):
    (tmp_path / "run" / "release").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert evaluate._settings([f"release={tmp_path / 'run' / 'release'}"]).dataset.name == "digits"
    (tmp_path / "run" / "internal").mkdir()
    with rejects("release", str(tmp_path / "run" / "release")):
        evaluate._settings([f"release={tmp_path / 'run' / 'release'}"])
