"""`method=dp_classifier`: DP-SGD on the private images themselves, a classifier released, certified, and judged once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from data.datasets.digits import Digits
from data.samples import SampleSet
from dp_finetune.classifier import Classification, LabelledViews
from dp_finetune.engines import BatchedEngine, ViewsEngine
from dp_finetune.per_example import dense
from models.classifiers.networks import ClassifierName, Norm
from models.classifiers.released import WEIGHTS, ReleasedClassifier
from models.classifiers.training import Recipe
from pipeline.config import Config
from pipeline.plan import Plan
from pipeline.running import Result as Run
from privacy.accounting import compose_epsilon
from privacy.mechanisms import SampledGaussian, Spend
from privacy.noise import NoiseSource
from scripts import evaluate, export, report, sample, verify
from scripts.dashboard.folders import Contents, read
from store.run_dir import RunDir
from tests.command import bytes_of, call, output_of, typed
from tests.rejects import rejects

METHOD = ["method=dp_classifier", "method.steps=3", "method.batch_size=8", "method.augmult=2", "method.gradient_engine=batched"]
ONE_OF_EACH_KIND = [ClassifierName(name) for name in ("cnn", "lenet", "tanh_cnn", "resnet9", "wrn16_4")]
FAST = [*METHOD, "device=cpu", "privacy.epsilon=null", "privacy.noise_multiplier=3"]


def train(folder: Path, *overrides: str) -> Path:
    result = call(*FAST, *overrides, f"hydra.run.dir={folder}/run")
    assert result.code == 0, result.err
    return folder / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("dp_classifier"))


def test_a_release_is_a_classifier_with_its_certificate_and_no_image(trained):
    release = trained / "release"
    assert {path.name for path in release.iterdir()} == {"README.md", "privacy.json", "classifier.json", WEIGHTS}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in release.iterdir())  # whoever it is shared with may read it
    document = json.loads((release / "privacy.json").read_text())
    spent = [Spend("dp_sgd", SampledGaussian(3.0, 8 / 1437), 3)]
    assert document["epsilon"] == compose_epsilon(spent, document["delta"])
    assert (document["private"], document["classifier"], document["public_model"]) == (True, "cnn", None)
    assert document["public_inputs"] == []
    assert "num_samples" not in document


def test_its_card_is_one_of_a_model_and_says_nothing_of_images_to_read(trained):
    card = ModelCard.load(trained / "release" / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "image-classification"
    for told in ("# An image classifier: digits, by dp_classifier", "grey images of 8 × 8 pixels", "all 1437 training images"):
        assert told in card.text
    for other in ("samples.npz", "grid.png", "scripts.export"):
        assert other not in card.text


def test_its_accuracy_on_real_test_images_is_that_of_what_is_released(trained):
    released, test = ReleasedClassifier.load(trained / "release"), Digits(class_counts="uniform").test()  # type: ignore[arg-type]
    metrics = json.loads(RunDir(trained).metrics.read_text())
    assert metrics["cnn/accuracy"] == np.mean(released.classify(test.images) == test.labels)
    assert {"cnn/balanced_accuracy", "cnn/accuracy_seeds", "time/method_seconds"} <= metrics.keys()
    assert not [name for name in metrics if name.startswith(("frechet/", "wrn40_4/"))]
    internal = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert all(line["internal"] for line in internal if "cnn/accuracy" in line)


def test_tools_for_releases_take_it_or_refuse_it_in_one_line(trained, tmp_path, capsys):
    release = trained / "release"
    verify.main([f"release={release}"])
    assert "FAILED" not in capsys.readouterr().out
    report.main([f"run={trained}", f"out={tmp_path}/report.html"])
    assert "<img" not in (tmp_path / "report.html").read_text()
    evaluate.main([f"release={release}", "eval=full", f"out={tmp_path}/judged", "device=cpu"])
    judged = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    assert judged["cnn/accuracy"] == json.loads(RunDir(trained).metrics.read_text())["cnn/accuracy"]
    row, _ = read(trained, "run", Contents(private_metrics=True, private_pictures=False))
    assert (row["status"], row["classifier"], row["picture"]) == ("finished", "cnn", False)
    with rejects("release", release, "no samples"):
        export.main([f"release={release}", f"to={tmp_path}/set", "format=imagefolder"])
    with rejects("model", release):
        sample.main([f"model={release}", "num_samples=10", f"out={tmp_path}/more"])
    with rejects("release", release, "other images or classes"):
        evaluate.main([f"release={release}", "dataset.keep_classes=['3','5']", f"out={tmp_path}/other", "device=cpu"])


def test_python_gets_the_classifier_and_no_samples(trained):
    run = Run(typed(*FAST), RunDir(trained))
    assert run.classifier.classes == list("0123456789")
    with rejects("method", "dp_classifier", "no samples"):
        _ = run.samples


def test_other_test_images_change_the_number_alone(tmp_path, monkeypatch):
    """The noise is known, so that two runs can be compared."""
    one = train(tmp_path / "one", "privacy.noise_seed=1")
    assert RunDir(one).output == RunDir(one).withheld
    original = Digits.test
    monkeypatch.setattr(Digits, "test", lambda self: SampleSet(255 - original(self).images, original(self).labels, 10))
    assert bytes_of(output_of(train(tmp_path / "other", "privacy.noise_seed=1"))) == bytes_of(output_of(one))


def test_a_plan_opens_no_image_and_has_the_classifier_s_cost(here, monkeypatch):
    monkeypatch.setattr("data.datasets.digits.handwritten", lambda split: pytest.fail("images were opened"))
    result = call(*FAST, "plan_only=true", "privacy.delta=3.4e-4")
    document = json.loads(result.out)
    assert document["privacy"]["events"][0]["count"] == 3
    assert "with probability 0.49" in document["privacy"]["caution"]
    weights = Recipe(classifier=ClassifierName.cnn, norm=Norm.group).network(1, 10).parameters()
    assert document["model"]["trainable_parameters"] == sum(p.numel() for p in weights)
    assert document["work"]["flops"] > 0
    assert document["work"]["peak_memory_gib"] > 0
    assert list(document["evaluation"]) == ["downstream"]
    assert document["hints"][0].startswith("method=dp_classifier releases a classifier and no samples, which eval.frechet judges")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("method.num_samples=10", "method.num_samples", 10),
        ("dataset.keep_classes=['3']", "dataset", "digits"),
        ("eval.downstream.sizes=[5]", "eval.downstream.sizes", [5]),
        ("eval.downstream.ensemble=5", "eval.downstream.ensemble", 5),
        ("eval.downstream.choose_from=[0.1,0.03]", "eval.downstream.choose_from", [0.1, 0.03]),
        ("privacy.selection_epsilon=0.1", "privacy.selection_epsilon", 0.1),
    ],
)
def test_what_cannot_run_is_refused(override, key, value):
    with rejects(key, value):
        typed(*FAST, override)


def test_no_public_model_is_asked_for():
    config = typed(*FAST, "model=latent_unet", "model.pretrained=nowhere", "model.features=null")
    assert config.public_inputs() == []
    assert config.judging.embeddings() == set()


def test_a_published_preset_spends_its_published_budget():
    config: Config = typed("+experiment=dpd/classifier_mnist")
    assert 9.9 < Plan.of(config).epsilon <= 10


def test_a_damaged_classifier_is_refused(trained, tmp_path):
    for name, content in (("classifier.json", b"{"), (WEIGHTS, b"no weights")):
        for file in (trained / "release").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / name).write_bytes(content)
        with rejects("release", tmp_path, "no classifier"):
            ReleasedClassifier.load(tmp_path)


@pytest.mark.parametrize("classifier", ONE_OF_EACH_KIND)
def test_both_engines_find_the_gradient_of_each_example(classifier):
    torch.manual_seed(0)
    network: Any = Recipe(classifier=classifier, norm=Norm.group).network(1, 4).double().eval()
    x, labels = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 3, 1])
    views = Classification(2, [], NoiseSource(bytes(32)), torch.device("cpu")).views(x, labels, [5, 6, 7], step=1)
    assert (views.augmult, views.labels.tolist()) == (2, [0, 0, 3, 3, 1, 1])
    BatchedEngine(network, 6, 2)(Double(views.x, views.labels, 3))
    batched = [dense(p.grad_sample).clone() for p in network.parameters()]
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
