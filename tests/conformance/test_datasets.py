"""What every dataset keeps: a dataset is put through all of it by a line in DATASETS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.datasets.medmnist
import data.datasets.official
from conf.schema import COMPONENTS
from data.dataset import ClassCounts, Dataset
from data.datasets.camelyon17 import Camelyon17
from data.datasets.celeba import CelebA
from data.datasets.digits import Digits
from data.datasets.folder import Folder
from data.datasets.imagenet import ImageNet
from data.datasets.medmnist import MedMNIST
from data.datasets.official import FACTS
from data.datasets.published import Published
from data.datasets.rehearsal import Rehearsal
from data.decoding import OnBad
from data.listed import Listed, uniform
from data.samples import SampleSet
from tests.data.test_folder import class_folders
from tests.data.test_imagenet import write_imagenet
from tests.data.test_listed import write_camelyon, write_celeba
from tests.data.test_medmnist import SMALL, write_medmnist
from tests.data.test_published import write_mnist
from tests.rejects import rejects

UNIFORM: dict[str, Any] = {"class_counts": ClassCounts.uniform}


def digits(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    return Digits(**{**UNIFORM, **changes})


def folder(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    class_folders(folder, 60)
    return Folder(path=str(folder), image_size=8, **{**UNIFORM, **changes})


def damaged(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    class_folders(folder, 60)
    for file in sorted(folder.rglob("*.png"))[:12]:
        file.write_bytes(file.read_bytes()[:40])
    return Folder(path=str(folder), image_size=8, on_bad=OnBad.skip, **{**UNIFORM, **changes})


def mnist(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    patch.setitem(data.datasets.official.FACTS, "mnist", dataclasses.replace(FACTS["mnist"], num_train=12, num_test=12))
    write_mnist(folder)
    return Published(name="mnist", path=str(folder), **{**UNIFORM, **changes})


def camelyon17(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    patch.setattr(Camelyon17, "num_train", 2)
    write_camelyon(folder)
    return Camelyon17(path=str(folder), image_size=32, **{**UNIFORM, **changes})


def celeba(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    patch.setattr(CelebA, "num_train", 3)
    write_celeba(folder)
    return CelebA(path=str(folder), **{**UNIFORM, **changes})


def imagenet(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    patch.setattr(ImageNet, "num_train", 30)
    write_imagenet(folder)
    return ImageNet(path=str(folder), **{**UNIFORM, **changes})


def medmnist(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    patch.setitem(data.datasets.medmnist.FACTS, "pneumoniamnist", SMALL["pneumoniamnist"])
    write_medmnist(folder)
    return MedMNIST(path=str(folder), **{**UNIFORM, **changes})


Make = Callable[..., Dataset]


def rehearsal(folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Dataset:
    return Rehearsal(**{**UNIFORM, "num_images": 60, **changes})


DATASETS: list[Make] = [digits, rehearsal, folder, damaged, mnist, camelyon17, celeba, imagenet, medmnist]

every_dataset = pytest.mark.parametrize("make", DATASETS, ids=[make.__name__ for make in DATASETS])


@pytest.fixture
def dataset(make, tmp_path, monkeypatch) -> Dataset:
    return make(tmp_path, monkeypatch)


def rows_of(samples: SampleSet) -> set[bytes]:
    return {image.tobytes() for image in samples.images}


def test_every_dataset_that_users_can_choose_is_in_the_list(tmp_path, monkeypatch):
    made = set()
    for make in DATASETS:
        place = tmp_path / make.__name__
        place.mkdir()
        made.add(type(make(place, monkeypatch)))
    assert made == set(COMPONENTS["dataset"].values())


@every_dataset
def test_facts_and_checks_open_no_image(dataset, monkeypatch):
    for split in ("train", "private", "public", "test"):
        monkeypatch.setattr(type(dataset), split, lambda self: pytest.fail("images were opened"))
    dataset.check()
    facts = dataset.facts()
    assert facts["n_private"] == dataset.num_private > 0
    assert facts["classes"] == dataset.classes
    assert len(set(dataset.classes)) == len(dataset.classes)
    assert facts["shape"] == list(dataset.shape)
    assert dataset.num_test >= 0
    assert dataset.num_public >= 0
    assert dataset.decoding_bytes >= 0


@every_dataset
def test_private_images_are_as_many_as_is_taken_as_public(dataset):
    dataset.check()
    dataset.prepare()
    number = len(dataset.private())
    assert number == dataset.num_private or (dataset.may_be_fewer and 0 < number < dataset.num_private)


@every_dataset
def test_the_certificate_repeats_the_number_and_the_classes(dataset):
    sentence = "\n".join(dataset.assumptions())
    assert f"number of private images: {dataset.num_private}" in sentence
    assert ", ".join(dataset.classes) in sentence


@every_dataset
def test_all_images_are_of_the_announced_shape_and_labelled_by_the_announced_classes(dataset):
    for samples in (dataset.private(), dataset.test()):
        assert samples.images.dtype == np.uint8
        assert samples.images.shape[1:] == dataset.shape
        assert samples.num_classes == len(dataset.classes)
        assert samples.labels.dtype == np.int64
        assert set(samples.labels.tolist()) <= set(range(len(dataset.classes)))


@every_dataset
def test_the_same_images_come_each_time(dataset):
    for split in (dataset.private, dataset.test):
        one, two = split(), split()
        assert one.digest() == two.digest()


@every_dataset
def test_test_images_are_not_private_ones(dataset, make):
    if make is mnist:
        pytest.skip("its small files hold the same images twice")
    if make is digits:
        private, test = dataset.private(), dataset.test()
        assert len(private) + len(test) == 1797
        return
    assert not rows_of(dataset.private()) & rows_of(dataset.test())


@every_dataset
def test_a_fraction_is_some_of_the_training_images_and_always_the_same_ones(make, tmp_path, monkeypatch):
    most = make(tmp_path, monkeypatch, fraction=0.9)
    most.check()
    private = most.private()
    assert len(private) <= most.num_private
    if isinstance(most, Listed):  # each file by its own name
        assert most.num_private == sum(uniform(name, "dataset.fraction") < 0.9 for name in most.lists()[0].names)
    else:
        assert most.num_private == max(1, round(0.9 * most.num_train))
    assert rows_of(private) <= rows_of(most.train())
    assert private.digest() == most.private().digest()


@every_dataset
def test_classes_that_are_kept_are_numbered_in_their_order_and_known_by_their_place_among_all(make, tmp_path, monkeypatch):
    if make is medmnist:
        pytest.skip("it keeps all, as the sizes of its classes are no published fact")
    everything = make(tmp_path, monkeypatch)
    names = everything.all_classes
    kept = dataclasses.replace(everything, keep_classes=[names[1], names[0]])
    kept.check()
    assert kept.classes == [names[1], names[0]]
    assert kept.class_numbers.tolist() == [1, 0]
    assert kept.class_numbers.dtype == np.int64
    assert everything.class_numbers.tolist() == list(range(len(names)))
    whole, some = everything.test(), kept.test()
    assert some.num_classes == 2
    for label, name in enumerate(kept.classes):
        theirs = whole.images[whole.labels == names.index(name)]
        assert np.array_equal(some.images[some.labels == label], theirs)


@every_dataset
@pytest.mark.parametrize(("key", "value"), [("fraction", 0.0), ("fraction", 1.5), ("keep_classes", ["no such class"])])
def test_settings_that_cannot_be_used_are_refused_by_their_key(make, tmp_path, monkeypatch, key, value):
    with rejects(f"dataset.{key}", value):
        make(tmp_path, monkeypatch, **{key: value}).check()


@every_dataset
def test_public_images_are_of_the_private_ones_shape(dataset):
    if not dataset.num_public:
        pytest.skip("has none")
    public = dataset.some_public()
    assert public.images.shape[1:] == dataset.shape
    assert public.num_classes == len(dataset.public_classes)
    assert not rows_of(public) & rows_of(dataset.private())
