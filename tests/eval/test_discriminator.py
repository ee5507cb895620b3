"""A network that tells private images from public ones, and what it takes the samples for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from data.samples import SampleSet
from eval.discriminator import Discriminator, public_and_private
from eval.evaluator import EvaluationContext
from models.classifiers.networks import ClassifierName
from tests.rejects import rejects


def level(bright: np.ndarray, labels: np.ndarray, classes: int) -> SampleSet:
    noise = np.random.default_rng(len(labels)).integers(-20, 20, (len(labels), 8, 8, 1))
    return SampleSet((np.where(bright, 200, 50)[:, None, None, None] + noise).astype(np.uint8), labels, classes)


def context(samples: SampleSet) -> EvaluationContext:
    """Private images are bright and public ones dark."""
    private = level(np.ones(60, bool), np.arange(60) % 3, 3)
    public = level(np.zeros(90, bool), np.arange(90) % 7, 7)
    opens = {"train": lambda: private, "some_public": lambda: public, "test": lambda: pytest.fail("test images opened")}
    dataset = SimpleNamespace(classes=["0", "1", "2"], **opens)
    return EvaluationContext(samples, cast(Any, dataset), cast(Any, None), torch.device("cpu"), 0, Path())


def test_samples_are_judged_by_class():
    labels = np.arange(30) % 3
    judge = Discriminator(classifier=ClassifierName.cnn, steps=30, batch_size=16)
    numbers = dict(judge.evaluate(context(level(labels > 0, labels, 3))))
    assert numbers == {
        "discriminator/accuracy": 1.0,
        "discriminator/private_like": pytest.approx(2 / 3),
        "discriminator/private_like/class=0": 0.0,
        "discriminator/private_like/class=1": 1.0,
        "discriminator/private_like/class=2": 1.0,
    }


def test_it_learns_on_as_many_public_as_private_images():
    both = public_and_private(context(level(np.ones(3, bool), np.arange(3), 3)))
    assert np.bincount(both.labels).tolist() == [60, 60]
    assert ((both.images.mean((1, 2, 3)) > 128) == both.labels).all()
    assert len(np.unique(both.images.reshape(120, -1), axis=0)) == 120


def test_it_is_off_unless_asked_for_and_refused_without_public_images():
    assert not Discriminator().enabled
    dataset = Mock(num_public=0)
    dataset.name = "svhn"
    with rejects("eval.discriminator.enabled", "true", "dataset=svhn"):
        Discriminator(enabled=True).check("eval.discriminator", dataset, Mock(), Mock())


def test_its_cost_is_of_training_and_of_judging_the_samples():
    dataset: Any = Mock(shape=(8, 8, 1), num_train=50, num_public=500)
    judge = Discriminator(classifier=ClassifierName.cnn, holdout=0.5)
    few, many = (judge.cost(dataset, Mock(), Mock(), count).flops for count in (100, 300))
    assert many - few == pytest.approx(200 * judge.step_cost((8, 8, 1), 2)[0] / 3 / 128)
    assert few > judge.steps * judge.step_cost((8, 8, 1), 2)[0]
