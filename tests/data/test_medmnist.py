"""MedMNIST, from small files of the true format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.compose import from_stored
from data.dataset import ClassCounts
from data.datasets import medmnist
from data.datasets.counterpart import PublicName
from data.datasets.medmnist import FACTS, MedMNIST
from errors import InputError
from store.identity import plain
from tests.command import call, typed
from tests.data.test_imagenet import write_imagenet
from tests.rejects import assert_refused, rejects

SIZES = {"train": 12, "val": 5, "test": 7}
SMALL = {name: dataclasses.replace(facts, num_train=12, num_val=5, num_test=7) for name, facts in FACTS.items()}


def arrays(name: str = "pneumoniamnist", size: int = 28) -> dict[str, np.ndarray]:
    """Of the same types and shapes as in the official files."""
    rng, facts = np.random.default_rng(0), FACTS[name]
    made = {}
    for split, number in SIZES.items():
        shape = (number, size, size, 3) if facts.channels == 3 else (number, size, size)
        made[f"{split}_images"] = rng.integers(0, 256, shape).astype(np.uint8)
        made[f"{split}_labels"] = (np.arange(number) % len(facts.classes)).astype(np.uint8)[:, None]
    return made


def write_medmnist(root: Path, name: str = "pneumoniamnist", size: int = 28, **changes: Any) -> dict[str, np.ndarray]:
    made = {key: value for key, value in {**arrays(name, size), **changes}.items() if value is not None}
    np.savez_compressed(root / f"{name}{'' if size == 28 else f'_{size}'}.npz", **made)
    return made


@pytest.fixture
def small(monkeypatch):
    for name, facts in SMALL.items():
        monkeypatch.setitem(medmnist.FACTS, name, facts)


def dataset(path: Path, **changes: Any) -> MedMNIST:
    return MedMNIST(**{"path": str(path), "class_counts": ClassCounts.uniform, **changes})


def before_work(chosen: MedMNIST) -> None:
    """As run.py does."""
    chosen.check()
    chosen.prepare()
    chosen.private()


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize("name", FACTS)
def test_private_is_the_training_split_and_test_the_test_split(name, size, tmp_path, small):
    written = write_medmnist(tmp_path, name, size)
    chosen = dataset(tmp_path, name=name, image_size=size)
    before_work(chosen)
    for samples, split in ((chosen.private(), "train"), (chosen.test(), "test")):
        assert samples.images.shape == (SIZES[split], *chosen.shape)
        assert np.array_equal(samples.images.ravel(), written[f"{split}_images"].ravel())
        assert samples.labels.tolist() == written[f"{split}_labels"][:, 0].tolist()
        assert samples.num_classes == len(chosen.classes)


def test_the_file_itself_is_a_path_too(tmp_path, small):
    write_medmnist(tmp_path)
    (tmp_path / "pneumoniamnist.npz").rename(tmp_path / "mine.npz")
    before_work(dataset(tmp_path / "mine.npz"))


def test_all_numbers_of_the_published_sets_add_up():
    """Yang et al. 2023, Table 2: the numbers of samples, without the 112,120 of ChestMNIST."""
    totals = {name: facts.num_train + facts.num_val + facts.num_test for name, facts in FACTS.items()}
    assert totals == {
        "pathmnist": 107_180,
        "dermamnist": 10_015,
        "octmnist": 109_309,
        "pneumoniamnist": 5_856,
        "retinamnist": 1_600,
        "breastmnist": 780,
        "bloodmnist": 17_092,
        "tissuemnist": 236_386,
        "organamnist": 58_830,
        "organcmnist": 23_583,
        "organsmnist": 25_211,
    }
    assert [len(facts.classes) for facts in FACTS.values()] == [9, 7, 4, 2, 5, 2, 8, 8, 11, 11, 11]


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_names_of_classes_can_be_told_apart_in_a_list(facts):
    assert not any("," in name for name in facts.classes)


def test_a_public_counterpart_is_brought_to_its_shape(tmp_path):
    write_imagenet(tmp_path)
    assert dataset(tmp_path).num_public == 0
    public = dataset(tmp_path, public_name=PublicName.imagenet32, public_path=str(tmp_path)).public()
    assert public.images.shape == (30, 28, 28, 1)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("name", "chestmnist", "several labels"),
        ("name", "mnist", "pneumoniamnist"),
        ("image_size", 32, "28 or 64"),
        ("keep_classes", ["pneumonia"], "no published fact"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(key, value, words, tmp_path):
    with rejects(f"dataset.{key}", value, words):
        dataset(tmp_path, **{key: value}).check()


@pytest.mark.parametrize("name", FACTS)
def test_a_stored_configuration_is_read_back_as_it_was(name):
    config = typed("dataset=medmnist", f"dataset.name={name}", "dataset.image_size=64", "method=real_data", "eval=none")
    assert from_stored(plain(config)).dataset == config.dataset


def test_what_is_refused_is_refused_before_any_file_is_there(here):
    assert_refused(call("dataset=medmnist", "dataset.name=chestmnist"), "dataset.name=chestmnist", "several labels")
    missing = call("dataset=medmnist", "dataset.path=nowhere", "method=real_data", "eval=none", "device=cpu")
    assert_refused(missing, "dataset.path=nowhere", "there is no pneumoniamnist.npz")
    assert not list(here.iterdir())


HARM: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"train_labels": None}, "train_labels"),
    "no validation images": ({"val_images": None}, "val_images"),
    "floats": ({"train_images": arrays()["train_images"] / np.float32(255)}, "train_images"),
    "other size": ({"train_images": arrays(size=64)["train_images"]}, "train_images"),
    "colour": ({"test_images": arrays("pathmnist")["test_images"]}, "test_images"),
    "one private image less": ({"train_images": arrays()["train_images"][:11]}, "train_images"),
    "one private label less": ({"train_labels": arrays()["train_labels"][:11]}, "train_labels"),
    "one test image less": ({"test_images": arrays()["test_images"][:6]}, "test_images"),
    "flat labels": ({"train_labels": arrays()["train_labels"][:, 0]}, "train_labels"),
    "labels of text": ({"train_labels": np.array([["pneumonia"]] * 12)}, "train_labels"),
    "pickled": ({"train_labels": np.array([[None]] * 12)}, "train_labels"),
    "a label of none": ({"train_labels": np.full((12, 1), 13, np.uint8)}, "train split"),
    "a test label of none": ({"test_labels": np.full((7, 1), 13, np.uint8)}, "test split"),
}


@pytest.mark.parametrize(("changes", "part"), HARM.values(), ids=HARM)
def test_a_file_that_is_not_the_official_one_is_told_by_its_part_and_by_nothing_that_is_in_it(changes, part, tmp_path, small):
    write_medmnist(tmp_path, **changes)
    with rejects("dataset.path", tmp_path, f" {part} of pneumoniamnist"):
        told(dataset(tmp_path))


def told(chosen: MedMNIST) -> None:
    """As `before_work`, and what it refuses with repeats no wrong number or label of the file."""
    try:
        before_work(chosen)
    except InputError as error:
        said = str(error).replace(chosen.path, "")
        assert not any(number in said for number in ("11", "13"))
        raise


@pytest.mark.parametrize("end", [0, 100, -30])
def test_a_file_that_is_cut_off_is_told(end, tmp_path, small):
    write_medmnist(tmp_path)
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(path.read_bytes()[:end])
    with rejects("dataset.path", tmp_path, "no readable train_images"):
        before_work(dataset(tmp_path))


def test_a_damaged_image_is_told_without_what_the_reader_says(tmp_path, small):
    write_medmnist(tmp_path)
    path = tmp_path / "pneumoniamnist.npz"
    content = bytearray(path.read_bytes())
    content[2000:2010] = b"\xff" * 10
    path.write_bytes(content)
    with rejects("dataset.path", tmp_path, "no readable train split of pneumoniamnist."):
        before_work(dataset(tmp_path))
