"""`dataset.keep_classes`: the images of some classes are the private dataset, and its size is known before they are opened."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

import data.datasets.official
from data.dataset import ClassCounts
from data.datasets.digits import Digits, handwritten
from data.datasets.imagenet import ImageNet
from data.datasets.official import FACTS
from data.datasets.published import Published
from scripts import sample
from tests.command import call, output_of, released
from tests.data.test_folder import class_folders, folder
from tests.data.test_listed import camelyon as camelyon
from tests.data.test_listed import write_camelyon
from tests.data.test_published import LABELS, write_mnist
from tests.data.test_published import small as small
from tests.rejects import rejects


def digits(*names: str, **settings) -> Digits:
    return Digits(class_counts=ClassCounts.uniform, keep_classes=list(names), **settings)


@pytest.mark.parametrize("names", [["3", "5"], ["5", "3"], ["7"]])
def test_what_is_kept_are_the_images_of_those_classes_in_that_order(names):
    dataset = digits(*names)
    dataset.check()
    for split, samples in (("private", dataset.private()), ("test", dataset.test())):
        images, labels = handwritten(split)
        assert samples.num_classes == len(dataset.classes) == len(names)
        for label, name in enumerate(names):
            assert np.array_equal(samples.images[samples.labels == label], images[labels == int(name)])
        assert len(samples) == sum((labels == int(name)).sum() for name in names)
    assert dataset.num_private == len(dataset.private())
    assert dataset.class_numbers.tolist() == [int(name) for name in names]


@pytest.mark.parametrize("name", FACTS)
def test_published_sizes_of_classes_add_up(name):
    assert sum(FACTS[name].class_sizes) == FACTS[name].num_train
    assert len(FACTS[name].class_sizes) == len(FACTS[name].classes)


def test_a_fraction_is_one_of_the_subset():
    assert len(digits("3", "5", fraction=0.1).private()) == round(0.1 * len(digits("3", "5").private()))


def test_a_published_dataset_keeps_classes(tmp_path, small, monkeypatch):
    images = write_mnist(tmp_path)
    sizes = np.bincount(LABELS, minlength=10).tolist()
    monkeypatch.setitem(data.datasets.official.FACTS, "mnist", dataclasses.replace(FACTS["mnist"], class_sizes=sizes))
    dataset = Published(name="mnist", path=str(tmp_path), class_counts=ClassCounts.uniform, keep_classes=["1", "4"])
    dataset.check()
    dataset.prepare()
    private = dataset.private()
    assert np.array_equal(private.images, images[np.isin(LABELS, [1, 4])])
    assert len(private) == dataset.num_private == 3


def test_listed_images_of_other_classes_are_never_decoded(tmp_path):
    root = class_folders(tmp_path / "images")
    for broken in (root / "ant").iterdir():
        broken.write_bytes(b"")
    dataset = folder(root, keep_classes=["cat"], test_fraction=0.3)
    dataset.check()
    dataset.prepare()
    assert dataset.classes == ["cat"]
    assert len(dataset.private()) + len(dataset.test()) == 10
    assert dataset.private().num_classes == 1


def test_camelyon_keeps_one_class(tmp_path, camelyon):
    write_camelyon(tmp_path)
    dataset = dataclasses.replace(camelyon, keep_classes=["tumour"])
    assert dataset.private().labels.tolist() == [0]


@pytest.mark.parametrize(
    ("dataset", "key"),
    [
        (digits("3", "3"), "keep_classes"),
        (digits("cat"), "keep_classes"),
        (digits(), "keep_classes"),
        (Published(name="mnist", class_counts=ClassCounts.uniform, keep_classes=["1"], held_out=10), "held_out"),
        (ImageNet(class_counts=ClassCounts.uniform, keep_classes=["cat"]), "keep_classes"),
    ],
)
def test_a_wrong_subset_is_refused(dataset, key):
    with rejects(f"dataset.{key}", getattr(dataset, key)):
        dataset.check()


SUBSET = ["dataset.keep_classes=['3','5']", "method.num_samples=10", "eval=none", "device=cpu"]


def test_public_only_asks_the_model_for_the_labels_of_those_classes(here):
    samples = released(call("method=public_only", *SUBSET), here) / "samples.npz"
    with np.load(samples) as file:
        assert Counter(zip(file["labels"].tolist(), file["public_labels"].tolist(), strict=True)) == {(0, 3): 5, (1, 5): 5}


def test_private_evolution_starts_from_them_where_labels_match(here):
    settings = ["+experiment=smoke", *SUBSET, "eval.downstream.enabled=false", "method.initial_labels=matching"]
    with np.load(released(call(*settings), here) / "samples.npz") as file:
        assert set(zip(file["labels"].tolist(), file["public_labels"].tolist(), strict=True)) == {(0, 3), (1, 5)}


def test_a_trained_model_makes_more_of_those_classes_alone(here):
    released(call("+experiment=dp_diffusion/smoke", *SUBSET, "method.batch_size=16", "model.respacing='2'"), here)
    sample.main([f"model={output_of(here / 'run')}/model", "num_samples=6", "out=more"])
    with np.load(here / "more" / "samples_00000.npz") as file:
        assert file["labels"].tolist() == [0, 1] * 3
        assert file["public_labels"].tolist() == [3, 5] * 3
