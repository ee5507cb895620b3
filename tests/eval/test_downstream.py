"""Classifiers that judge samples: trained and chosen on nothing but them, tested once, at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from data.samples import SampleSet
from eval import downstream
from eval.downstream import Downstream, beside_accuracy, mean_and_spread, split
from eval.evaluator import EvaluationContext
from models.classifiers.networks import ClassifierName
from models.classifiers.training import LearningRateSchedule, logits, train
from tests.rejects import rejects

CPU = torch.device("cpu")


def images(seed: int, count: int = 40, classes: int = 4) -> SampleSet:
    """The class is in the level of one corner."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % classes
    pixels = rng.integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    pixels[:, :4, :4, 0] = (labels * (255 // (classes - 1)))[:, None, None]
    return SampleSet(pixels, labels, classes)


@dataclass
class World:
    """A dataset that records what is opened between trainings, and the classifiers that were trained."""

    tested: SampleSet = field(default_factory=lambda: images(1))
    events: list[str] = field(default_factory=list)
    trained: list[dict[str, torch.Tensor]] = field(default_factory=list)
    on: list[int] = field(default_factory=list)

    def test(self) -> SampleSet:
        self.events.append("test")
        return self.tested

    def some_public(self) -> SampleSet:
        self.events.append("public")
        return images(2, classes=3)

    def train(self, samples: SampleSet, recipe: Any, **settings: Any) -> Any:
        network = train(samples, recipe, **settings)
        self.events.append("train")
        self.trained.append({name: value.clone() for name, value in network.state_dict().items()})
        self.on.append(len(samples))
        return network


def judge(monkeypatch, world: World, samples: SampleSet | None = None, **settings: Any) -> dict[str, float]:
    monkeypatch.setattr(downstream, "train", world.train)
    usual = {
        "classifier": ClassifierName.cnn,
        "schedule": LearningRateSchedule.constant,
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 0.05,
    }
    context = EvaluationContext(samples or images(0), cast(Any, world), cast(Any, None), CPU, 0, Path())
    return dict(Downstream(**{**usual, **settings}).evaluate(context))


def test_the_classifiers_name_is_in_the_numbers(monkeypatch):
    world = World()
    numbers = judge(monkeypatch, world, seeds=2)
    assert list(numbers) == [
        "cnn/accuracy", "cnn/accuracy_spread", "cnn/accuracy_seeds", "cnn/balanced_accuracy", "cnn/balanced_accuracy_spread",
    ]  # fmt: skip
    assert numbers["cnn/accuracy_seeds"] == 2
    assert world.on == [40, 40]


def test_an_ensemble_is_the_mean_of_logits_beside_the_mean_of_accuracies(monkeypatch):
    kept: list[np.ndarray] = []

    def recorded(*args: Any) -> np.ndarray:
        kept.append(logits(*args))
        return kept[-1]

    monkeypatch.setattr(downstream, "logits", recorded)
    world = World()
    numbers = judge(monkeypatch, world, ensemble=3, steps=2)
    assert len(kept) == 3
    assert numbers["cnn/ensemble_accuracy"] == (sum(kept).argmax(1) == world.tested.labels).mean()  # type: ignore[union-attr]
    assert numbers["cnn/accuracy"] == pytest.approx(np.mean([(k.argmax(1) == world.tested.labels).mean() for k in kept]))
    assert numbers["cnn/accuracy_seeds"] == 3


def answers(*chosen: int, classes: int) -> np.ndarray:
    """Logits whose largest is of these classes."""
    return np.eye(classes, dtype=np.float32)[list(chosen)]


def of_labels(*labels: int, classes: int) -> SampleSet:
    return SampleSet(np.zeros((len(labels), 8, 8, 1), np.uint8), np.array(labels), classes)


def test_balanced_accuracy_is_the_mean_of_the_classes_recalls():
    test = of_labels(0, 0, 0, 0, 0, 0, 1, 1, 2, classes=4)  # 6 images, 2, 1 and none
    one = answers(0, 0, 0, 1, 1, 2, 1, 0, 2, classes=4)  # right: 3 of 6, 1 of 2, 1 of 1
    constant = answers(*[0] * 9, classes=4)
    found = beside_accuracy([one, constant], test)
    assert found.keys() == {"balanced_accuracy"}
    assert found["balanced_accuracy"] == pytest.approx([(1 / 2 + 1 / 2 + 1) / 3, 1 / 3])
    assert found["balanced_accuracy"][0] == pytest.approx(balanced_accuracy_score(test.labels, one.argmax(1)))


def test_auc_of_two_classes_is_the_chance_that_the_second_is_ranked_above_the_first():
    test = of_labels(0, 0, 0, 1, 1, classes=2)
    margins = np.array([-9, 0.1, 2, 0.1, 3], np.float32)  # of the 6 pairs 4 are in order, and 1 is tied
    scores = np.stack([5 - margins / 2, 5 + margins / 2], axis=1)
    (area,) = beside_accuracy([scores], test)["auc"]
    assert area == pytest.approx(4.5 / 6)
    assert area == pytest.approx(roc_auc_score(test.labels, scores[:, 1] - scores[:, 0]))


def test_logits_that_are_no_numbers_rank_nothing():
    found = beside_accuracy([np.full((5, 2), np.nan, np.float32)], of_labels(0, 0, 0, 1, 1, classes=2))
    assert found == {"balanced_accuracy": [0.5], "auc": [0.5]}


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 1]])
def test_there_is_no_auc_where_a_class_has_hardly_an_image(labels):
    assert beside_accuracy([answers(*[0] * 3, classes=2)], of_labels(*labels, classes=2)).keys() == {"balanced_accuracy"}


def test_two_classes_have_an_auc_among_the_numbers(monkeypatch):
    numbers = judge(monkeypatch, World(images(1, classes=2)), images(0, classes=2), seeds=2, sizes=[20], steps=30)
    assert numbers["cnn/auc"] > 0.9
    assert {"cnn/auc_spread", "cnn/auc_at=20", "cnn/auc_spread_at=20", "cnn/balanced_accuracy_at=20"} <= numbers.keys()


def test_fewer_samples_are_a_balanced_part(monkeypatch):
    world = World()
    numbers = judge(monkeypatch, world, sizes=[8, 20], ensemble=2, steps=1)
    assert world.on == [40, 40, 8, 8, 20, 20]
    for name in ("accuracy_at=8", "accuracy_spread_at=20", "ensemble_accuracy_at=8"):
        assert f"cnn/{name}" in numbers
    with rejects("eval.downstream.sizes", [41], " 40 "):
        judge(monkeypatch, World(), sizes=[41])


def test_the_choice_is_the_best_on_samples_that_were_held_out(monkeypatch):
    world = World()
    numbers = judge(monkeypatch, world, choose_from=[1e-9, 0.05], choose_steps=[1, 30], holdout=0.2)
    assert world.on == [32] * 4 + [40]
    assert (numbers["cnn/chosen_learning_rate"], numbers["cnn/chosen_steps"]) == (0.05, 30)
    assert 0 < numbers["cnn/holdout_accuracy"] <= 1
    alone = World()
    judge(monkeypatch, alone, learning_rate=0.05, steps=30)
    assert all(torch.equal(value, alone.trained[0][name]) for name, value in world.trained[-1].items())


def test_real_test_images_change_nothing_but_the_last_number(monkeypatch):
    settings: Any = {"choose_from": [0.05, 0.01], "seeds": 2, "sizes": [20], "ensemble": 2, "pretrain_steps": 2}
    one, two = World(), World(tested=images(1)[::-1])
    two.tested.labels = np.roll(two.tested.labels, 7)
    before, after = judge(monkeypatch, one, **settings), judge(monkeypatch, two, **settings)
    for a, b in zip(one.trained, two.trained, strict=True):
        assert all(torch.equal(value, b[name]) for name, value in a.items())
    judged = {name for name in before if before[name] != after[name]}
    assert "cnn/accuracy" in judged
    assert not {name for name in judged if "holdout" in name or "chosen" in name}


def test_the_test_split_is_opened_once_after_the_last_training(monkeypatch):
    world = World()
    judge(monkeypatch, world, choose_from=[0.05, 0.01], seeds=2, sizes=[20], pretrain_steps=1)
    assert world.events == ["public"] + ["train"] * 7 + ["test"]


def test_pretraining_is_on_public_images_once_and_every_classifier_starts_there(monkeypatch):
    world = World()
    judge(monkeypatch, world, seeds=2, steps=1, pretrain_steps=3, learning_rate=1e-9)
    public, *others = world.trained
    assert public["head.weight"].shape == (3, 128)
    for network in others:
        assert network["head.weight"].shape == (4, 128)
        assert torch.allclose(network["body.0.0.weight"], public["body.0.0.weight"], atol=1e-6)


def test_progress_counts_every_step(monkeypatch):
    settings: Any = {"choose_from": [0.05, 0.01], "seeds": 2, "sizes": [20], "pretrain_steps": 3, "steps": 4}
    totals: list[int] = []
    done: list[int] = []

    class Bar:
        def __init__(self, description: str, total: int):
            totals.append(total)

        def __enter__(self):
            return done.append

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(downstream, "progress", Bar)
    judge(monkeypatch, World(), **settings)
    assert totals == [sum(done)] == [3 + 2 * 4 + 2 * 2 * 4]


def test_samples_without_classes_train_nothing(monkeypatch):
    whole = images(0)
    assert judge(monkeypatch, World(), SampleSet(whole.images, np.zeros(40, np.int64), 1)) == {}


def test_cost_is_that_of_all_trainings():
    dataset: Any = Mock(shape=(8, 8, 1), classes=list("abcd"), num_public=500)
    one = Downstream(steps=10).cost(dataset, Mock(), Mock(), 100).flops
    many = Downstream(steps=10, seeds=2, ensemble=5, sizes=[10], pretrain_steps=30, choose_from=[0.1, 0.2])
    assert many.cost(dataset, Mock(), Mock(), 100).flops == pytest.approx(one * (3 + 2 + 5 * 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": 0},
        {"ensemble": 0},
        {"pretrain_steps": 5},
        {"sizes": [0]},
        {"choose_from": [0.0]},
        {"choose_steps": [-1]},
        {"holdout": 1.0},
        {"steps": 0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings):
    dataset = Mock(num_public=0)
    dataset.name = "svhn"
    ((key, value),) = settings.items()
    with rejects(f"x.{key}", value):
        Downstream(**settings).check("x", dataset, Mock(), Mock())


def test_a_split_is_two_parts_with_classes_in_their_shares():
    kept, held = split(images(0, count=100), 0.2)
    assert (len(kept), len(held)) == (80, 20)
    assert np.bincount(held.labels).tolist() == [5, 5, 5, 5]
    together = np.concatenate([kept.images, held.images]).reshape(100, -1)
    assert np.array_equal(np.unique(together, axis=0), np.unique(images(0, count=100).images.reshape(100, -1), axis=0))


@pytest.mark.parametrize(("values", "mean", "spread"), [([0.5], 0.5, 0.0), ([1.0, 3.0], 2.0, 2**0.5)])
def test_mean_and_spread(values, mean, spread):
    assert mean_and_spread(values) == pytest.approx((mean, spread))
