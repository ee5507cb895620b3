"""DP-SGD on the private images themselves: spent, certified, resumed, and judged once."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

import dp_finetune.training
from data.datasets.digits import Digits
from data.samples import SampleSet
from dp_finetune.classifier import Classification, LabelledViews
from dp_finetune.engines import BatchedEngine, ViewsEngine
from models.classifiers.networks import ClassifierName, Norm
from models.classifiers.training import Recipe
from privacy.accounting import compose_epsilon
from privacy.mechanisms import SampledGaussian, Spend
from privacy.noise import NoiseSource
from scripts import dp_classifier
from store.run_dir import RunDir
from tests.command import bytes_of, output_of
from tests.rejects import ANY, rejects

FAST = ["method.steps=3", "method.batch_size=8", "method.augmult=2", "method.gradient_engine=batched", "device=cpu"]
FAST += ["privacy.epsilon=null", "privacy.noise_multiplier=3", "privacy.noise_seed=1"]


def train(folder: Path, *overrides: str) -> Path:
    dp_classifier.main([*FAST, *overrides, f"out={folder}"])
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("dp_classifier") / "run")


def test_the_certificate_is_the_composition_of_the_ledger(trained):
    document = json.loads((output_of(trained) / "privacy.json").read_text())
    spent = [Spend("dp_sgd", SampledGaussian(3.0, 8 / 1437), 3)]
    assert document["epsilon"] == compose_epsilon(spent, document["delta"])
    assert document["private"] is False  # its noise is known
    assert RunDir(trained).output == RunDir(trained).withheld
    assert 0 <= json.loads(RunDir(trained).metrics.read_text())["dp_classifier/accuracy"] <= 1


def test_a_training_that_was_cut_off_goes_on_to_the_same_classifier(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(dp_finetune.training, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        original = dp_finetune.training.Trainer.finish_step

        def dies(self, purpose):
            if purpose.endswith("=3"):
                raise KeyboardInterrupt
            original(self, purpose)

        patch.setattr(dp_finetune.training.Trainer, "finish_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run")
    train(tmp_path / "run")
    assert bytes_of(output_of(tmp_path / "run")) == bytes_of(output_of(trained))


def test_other_test_images_change_the_number_alone(trained, tmp_path, monkeypatch):
    original = Digits.test
    monkeypatch.setattr(Digits, "test", lambda self: SampleSet(255 - original(self).images, original(self).labels, 10))
    train(tmp_path / "run")
    assert bytes_of(output_of(tmp_path / "run")) == bytes_of(output_of(trained))


def test_a_plan_opens_no_image(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("data.datasets.digits.handwritten", lambda split: pytest.fail("images were opened"))
    train(tmp_path / "run", "plan_only=true", "privacy.delta=3.4e-4")
    document = json.loads(capsys.readouterr().out)
    assert document["privacy"]["events"][0]["count"] == 3
    assert "with probability 0.49" in document["privacy"]["caution"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("method.batch_size=5000", "method.batch_size", 5000),
        ("method.momentum=0.9", "method.momentum", 0.9),
        ("method.num_samples=10", "method.num_samples", 10),
        ("dataset.keep_classes=['3']", "dataset", "digits"),
    ],
)
def test_what_cannot_run_is_refused(override, key, value, tmp_path):
    with rejects(key, value):
        train(tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


def test_one_that_broke_off_between_its_release_and_its_accuracy_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(dp_classifier, "accuracy", Mock(side_effect=OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            train(tmp_path / "run")
    released = (output_of(tmp_path / "run") / "privacy.json").read_bytes()
    train(tmp_path / "run")
    assert (tmp_path / "run" / "internal" / "metrics.json").exists()
    assert (output_of(tmp_path / "run") / "privacy.json").read_bytes() == released


def test_a_crash_leaves_its_traceback_and_the_command_that_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(dp_classifier, "save_file", Mock(side_effect=ZeroDivisionError("norm")))
        with pytest.raises(ZeroDivisionError, match="norm"):
            train(folder)
    text = (folder / "internal" / "error.txt").read_text()
    assert "ZeroDivisionError: norm" in text
    assert "in _release" in text  # where it broke
    command = shlex.split(next(line for line in text.splitlines() if "python -m scripts.dp_classifier" in line))
    assert command[:3] == ["python", "-m", "scripts.dp_classifier"]
    dp_classifier.main(command[3:])
    assert RunDir(folder).finished
    assert not (folder / "internal" / "error.txt").exists()


def test_a_users_mistake_leaves_no_error_file(trained):
    with rejects("out", ANY, "finished run"):
        train(trained)
    assert not (trained / "internal" / "error.txt").exists()


def test_a_published_preset_spends_its_published_budget():
    settings = dp_classifier._composed(["+dp_classifier=dpd_mnist"])
    method, privacy = settings.method, settings.privacy
    rate = method.batch_size / 60_000
    spent = compose_epsilon([Spend("dp_sgd", SampledGaussian(privacy.noise_multiplier, rate), method.steps)], privacy.delta)
    assert 9.9 < spent <= 10


@pytest.mark.parametrize("classifier", [ClassifierName.cnn, ClassifierName.wrn16_4])
def test_both_engines_find_the_gradient_of_each_example(classifier):
    torch.manual_seed(0)
    network: Any = Recipe(classifier=classifier, norm=Norm.group).network(1, 4).double().eval()
    x, labels = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 3, 1])
    views = Classification(2, [], NoiseSource(bytes(32)), torch.device("cpu")).views(x, labels, [5, 6, 7], step=1)
    assert (views.augmult, views.labels.tolist()) == (2, [0, 0, 3, 3, 1, 1])
    BatchedEngine(network, 6, 2)(Double(views.x, views.labels, 3))
    batched = [p.grad_sample.clone() for p in network.parameters()]
    for example in range(3):
        ViewsEngine(network, 2, 2)(Double(views.x[2 * example : 2 * example + 2], views.labels[2 * example : 2 * example + 2], 1))
        for p, every in zip(network.parameters(), batched, strict=True):
            assert torch.allclose(p.grad_sample[0], every[example], rtol=1e-9, atol=1e-12)


class Double(LabelledViews):
    """Losses in float64, to compare to the last digits."""

    def part(self, rows: slice, examples: int = 1) -> Double:
        return Double(self.x[rows], self.labels[rows], examples)

    def losses(self, network, bfloat16: bool = False) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(network(self.x), self.labels, reduction="none")


def test_a_confident_wrong_answer_is_a_large_loss_and_chance_is_log_classes():
    views = LabelledViews(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), 2)
    assert views.losses(lambda x: torch.zeros(len(x), 5)).tolist() == pytest.approx([math.log(5)] * 2)
