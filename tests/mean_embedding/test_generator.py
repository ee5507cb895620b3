"""The generator: its shapes, what it is trained by, and a training that goes on as if it had not stopped."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from mean_embedding import generator as module
from mean_embedding.features import FeatureMap, fourier_features
from mean_embedding.generator import Generator, GeneratorTraining, fresh, generate, squared_distance, train
from models.features.extractors import Pixels

SHAPE, CLASSES = (8, 8, 1), 3
SHORT = GeneratorTraining(steps=6, batch_size=12, width=2, code_size=3)


def features() -> FeatureMap:
    return fourier_features(Pixels(), SHAPE, 50, [2.0], 0)


def trained(folder: Path, settings: GeneratorTraining = SHORT, stop: int | None = None) -> Generator:
    rng = np.random.default_rng(0)
    target = features().of_images(rng.integers(0, 256, (CLASSES, *SHAPE)).astype(np.uint8)) / CLASSES
    made = fresh(settings, SHAPE, CLASSES, 0, torch.device("cpu"))
    steps = train(made, features(), np.full(CLASSES, 1 / CLASSES), target, settings, 0, folder / "generator.pt")
    for _ in itertools.islice(steps, stop):
        pass
    return made


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3), (5, 30, 3), (1, 1, 1)])
def test_it_makes_images_of_any_sides_and_colours_one_for_each_label(shape):
    made = fresh(SHORT, shape, 2, 0, torch.device("cpu")).eval()
    images = generate(made, np.array([0, 1, 1]), shape, 0, lambda count: None)
    assert (images.dtype, images.shape) == (np.uint8, (3, *shape))


def test_an_image_depends_on_its_place_and_label_and_not_on_how_many_are_made(monkeypatch):
    made = fresh(SHORT, SHAPE, CLASSES, 0, torch.device("cpu")).eval()
    labels = np.arange(20) % CLASSES
    whole = generate(made, labels, SHAPE, 0, lambda count: None)
    np.testing.assert_array_equal(generate(made, labels[:16], SHAPE, 0, lambda count: None), whole[:16])
    assert not np.array_equal(generate(made, labels, SHAPE, 1, lambda count: None), whole)


@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_a_training_that_stopped_goes_on_to_the_same_weights_bit_by_bit(stop, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_STEPS", 2)
    whole = trained(tmp_path)
    (tmp_path / "stopped").mkdir()
    trained(tmp_path / "stopped", stop=stop)
    resumed = trained(tmp_path / "stopped")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_public_features_are_not_trained(tmp_path):
    from tests.mean_embedding.test_features import network

    extractor = network()
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    from mean_embedding.features import PerceptualMoments

    seen = PerceptualMoments(extractor, SHAPE, 0.5)
    made = fresh(SHORT, SHAPE, 1, 0, torch.device("cpu"))
    list(train(made, seen, np.ones(1), np.zeros((1, seen.size)), SHORT, 0, tmp_path / "generator.pt"))
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())
    assert all(p.grad is None for p in extractor.parameters())


def test_the_distance_is_mmd_in_expectation_whatever_the_size_of_a_batch():
    """Of distributions that are known: 0 where both are the same, though batches are small."""
    rng, shares = torch.Generator().manual_seed(0), torch.tensor([0.7, 0.3])
    points = torch.nn.functional.normalize(torch.randn(2, 5, 8, generator=rng), dim=2)  # each class: five equally likely φ
    target = shares[:, None] * points.mean(1)
    shifted = target + 0.1
    for wanted, true in ((target, 0.0), (shifted, float(((target - shifted) ** 2).sum()))):
        found = []
        for _ in range(4000):
            labels = torch.arange(6) % 2
            phi = points[labels, torch.randint(5, (6,), generator=rng)]
            found.append(float(squared_distance(phi, labels, shares, wanted)))
        assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / len(found) ** 0.5)


def test_a_generator_comes_to_the_classes_that_it_is_asked_for(tmp_path):
    """Of a class whose images are all the same it makes that image."""
    settings = GeneratorTraining(steps=150, batch_size=30, width=4, code_size=3)
    wanted = np.stack([np.zeros(SHAPE), np.full(SHAPE, 255), np.tile([[[0], [255]]], (8, 4, 1))]).astype(np.uint8)
    seen = fourier_features(Pixels(), SHAPE, 1000, [5.0], 0)
    target = seen.of_images(wanted) / 3
    made = fresh(settings, SHAPE, CLASSES, 0, torch.device("cpu"))
    list(train(made, seen, np.full(3, 1 / 3), target, settings, 0, tmp_path / "generator.pt"))
    images = generate(made, np.arange(30) % 3, SHAPE, 0, lambda count: None)
    apart = [np.abs(images[label::3].astype(float) - wanted[label]).mean() for label in range(3)]
    assert max(apart) < 40
