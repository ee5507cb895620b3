"""The papers' datasets, from small files of the true formats."""

from __future__ import annotations

import dataclasses
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

import data.datasets.official
from data.dataset import ClassCounts
from data.datasets.official import FACTS
from data.datasets.published import Published
from tests.rejects import rejects

RNG = np.random.default_rng(0)
LABELS = np.arange(12) % 10


def write_mnist(root: Path) -> np.ndarray:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, *images.shape) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 12) + LABELS.astype(np.uint8).tobytes())
    return images[..., None]


def write_cifar10(root: Path) -> np.ndarray:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = RNG.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    parts = {f"data_batch_{i + 1}": rows for i, rows in enumerate(np.array_split(np.arange(12), 5))}
    for name, rows in {**parts, "test_batch": np.arange(12)}.items():
        batch = {"data": images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1), "labels": LABELS[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": FACTS["cifar10"].classes}))
    return images


def write_svhn(root: Path) -> np.ndarray:
    images = RNG.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    for split in ("train", "test"):
        savemat(root / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": np.where(LABELS == 0, 10, LABELS)[:, None]})
    return images


WRITE = {"mnist": write_mnist, "cifar10": write_cifar10, "svhn": write_svhn}


@pytest.fixture
def small(monkeypatch):
    for name, facts in FACTS.items():
        monkeypatch.setitem(data.datasets.official.FACTS, name, dataclasses.replace(facts, num_train=12))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)


@pytest.mark.parametrize("name", WRITE)
def test_images_and_labels_are_those_of_the_files(name, tmp_path, small):
    images = WRITE[name](tmp_path)
    dataset = Published(name=name, path=str(tmp_path), class_counts=ClassCounts.uniform, held_out=2)
    dataset.check()
    dataset.prepare()
    private, test = dataset.private(), dataset.test()
    assert np.array_equal(private.images, images[:10])
    assert np.array_equal(private.labels, LABELS[:10])
    assert np.array_equal(test.images, images)
    assert (len(private), private.num_classes) == (dataset.num_private, 10)
    assert private.images.shape[1:] == dataset.shape


@pytest.mark.parametrize("name", FACTS)
def test_missing_files_are_named_before_anything_else_happens(name, tmp_path):
    dataset = Published(name=name, path=str(tmp_path), class_counts=ClassCounts.uniform)
    with rejects("dataset.path", tmp_path, Path(FACTS[name].train_file).name, "dataset.download=true"):
        dataset.prepare()


def mnist(root: Path) -> Published:
    return Published(name="mnist", path=str(root), class_counts=ClassCounts.uniform)


def before_work(dataset: Published) -> None:
    """As run.py does."""
    dataset.prepare()
    dataset.private()


def cut(content: bytes) -> bytes:
    return content[:400]


HARM = {
    "cut images": ("images-idx3-ubyte", cut),
    "no images": ("images-idx3-ubyte", lambda content: b""),
    "other magic": ("images-idx3-ubyte", lambda content: b"\0\1\2\3" + content[4:]),
    "other size": ("images-idx3-ubyte", lambda content: struct.pack(">IIII", 2051, 12, 16, 49) + content[16:]),
    "few labels": ("labels-idx1-ubyte", lambda content: struct.pack(">II", 2049, 11) + content[8:-1]),
    "a label of none": ("labels-idx1-ubyte", lambda content: content[:-1] + b"\x4d"),
}


@pytest.mark.parametrize("split", ["train", "t10k"])
@pytest.mark.parametrize(("file", "harm"), HARM.values(), ids=HARM)
def test_a_wrong_file_is_told_before_anything_is_spent(split, file, harm, tmp_path, small):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / f"{split}-{file}"
    path.write_bytes(harm(path.read_bytes()))
    part = {"train": "training", "t10k": "test"}[split]
    with rejects("dataset.path", tmp_path, f"{part} images of mnist"):
        before_work(mnist(tmp_path))


def test_another_number_of_images_is_told_before_anything_is_spent(tmp_path, small, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setitem(data.datasets.official.FACTS, "mnist", dataclasses.replace(FACTS["mnist"], num_train=13))
    with rejects("dataset.name", "mnist", "13 training images"):
        mnist(tmp_path).private()


@pytest.mark.parametrize("held_out", [-1, 60_000])
def test_a_hold_out_leaves_something(held_out):
    with rejects("dataset.held_out", held_out):
        Published(name="mnist", class_counts=ClassCounts.uniform, held_out=held_out).check()
