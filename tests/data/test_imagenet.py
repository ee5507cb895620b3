"""Downsampled ImageNet and public counterparts, from small files of the true formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

from data.dataset import ClassCounts
from data.datasets.counterpart import PublicName
from data.datasets.imagenet import ImageNet
from data.datasets.published import Published
from data.images import conform
from tests.rejects import rejects

RNG = np.random.default_rng(0)
PER_BATCH = 3


def write_imagenet(root: Path, size: int = 32) -> np.ndarray:
    root.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (11 * PER_BATCH, size, size, 3)).astype(np.uint8)
    data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    for i, file in enumerate([*(f"train_data_batch_{n}" for n in range(1, 11)), "val_data"]):
        rows = slice(i * PER_BATCH, (i + 1) * PER_BATCH)
        labels = np.array([1, 1000, 7 + i])
        np.savez(root / f"{file}.npz", data=data[rows], labels=labels, mean=np.zeros(data.shape[1]))
    (root / "map_clsloc.txt").write_text("".join(f"n{90_000_000 - i:08d} {i + 1} thing_{i + 1}\n" for i in range(1000)))
    return images


def imagenet(path: Path, **changes) -> ImageNet:
    return ImageNet(**{**dict(path=str(path), class_counts=ClassCounts.uniform), **changes})


@pytest.mark.parametrize("size", [32, 64])
def test_archives_are_read_in_order_with_labels_from_0(size, tmp_path):
    images = write_imagenet(tmp_path, size)
    dataset = imagenet(tmp_path, image_size=size)
    dataset.check()
    dataset.prepare()
    train, test = dataset.train(), dataset.test()
    assert np.array_equal(train.images, images[:30])
    assert np.array_equal(test.images, images[30:])
    assert train.labels[:4].tolist() == [0, 999, 6, 0]
    assert train.images.shape[1:] == dataset.shape
    assert dataset.classes[0] == "n90000000"
    assert dataset.classes[999] == "n89999001"


def test_plans_need_no_file():
    assert len(imagenet(Path("/nowhere")).facts()["classes"]) == 1000


@pytest.mark.parametrize("harm", ["missing", "torn", "labels", "size", "list", "zero", "npy", "zlib", "float", "int64", "names"])
def test_wrong_files_are_named(harm, tmp_path):
    write_imagenet(tmp_path, 64 if harm == "size" else 32)
    batch = tmp_path / "train_data_batch_3.npz"
    if harm == "missing":
        batch.unlink()
    if harm == "torn":
        batch.write_bytes(batch.read_bytes()[:100])
    if harm == "labels":
        np.savez(batch, data=np.zeros((2, 3072), np.uint8), labels=np.array([0, 5]))
    if harm == "zero":
        batch.write_bytes(b"")
    if harm == "npy":
        np.save(batch.open("wb"), np.zeros(3))
    if harm == "zlib":
        np.savez_compressed(batch, data=np.zeros((2, 3072), np.uint8), labels=np.array([1, 5]))
        content = bytearray(batch.read_bytes())
        content[60:70] = b"\xff" * 10
        batch.write_bytes(content)
    if harm in ("float", "int64"):
        np.savez(batch, data=np.zeros((2, 3072), harm), labels=np.array([1, 5]))
    if harm == "names":
        np.savez(batch, data=np.zeros((2, 3072), np.uint8), labels=np.array([1.5, 5]))
    if harm == "list":
        (tmp_path / "map_clsloc.txt").write_text("n02119789 1 kit_fox\n")
        with rejects("dataset.path", tmp_path / "map_clsloc.txt"):
            imagenet(tmp_path).classes  # noqa: B018
        return
    with rejects("dataset.path", tmp_path, "train_data_batch_"):
        imagenet(tmp_path).train()


def test_a_folder_without_the_archives_is_refused_before_work(tmp_path):
    with rejects("dataset.path", tmp_path, "train_data_batch_1.npz"):
        imagenet(tmp_path).prepare()


def test_a_damaged_test_archive_is_refused_before_work(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val_data.npz").write_bytes(b"")
    with rejects("dataset.path", tmp_path, "val_data.npz"):
        imagenet(tmp_path).prepare()


def test_classes_are_kept_and_counted_by_the_labels(tmp_path):
    images = write_imagenet(tmp_path)
    dataset = imagenet(tmp_path, keep_classes=["n89999001", "n89999991"])  # labels 1000 and 10 of the archives
    dataset.check()
    dataset.prepare()
    private, test = dataset.private(), dataset.test()
    assert private.labels.tolist() == [0, 0, 0, 0, 1, *[0] * 6]
    assert np.array_equal(private.images, images[[1, 4, 7, 10, 11, 13, 16, 19, 22, 25, 28]])
    assert (len(private), dataset.num_test, len(test)) == (dataset.num_private, 100, 1)


def test_a_class_subset_of_absent_archives_is_one_line(tmp_path):
    with rejects("dataset.path", tmp_path, "train_data_batch_1.npz"):
        imagenet(tmp_path, keep_classes=["label 1"]).facts()


@pytest.mark.parametrize(("name", "file"), [("imagenet32", "train_data_batch_1"), ("svhn", "training images of svhn")])
def test_a_missing_counterpart_is_told_of_its_own_path(name, file, tmp_path):
    place = {"public_name": PublicName[name], "public_path": str(tmp_path)}
    with rejects("dataset.public_path", tmp_path, file):
        Published(name="cifar10", class_counts=ClassCounts.uniform, **place).public()  # type: ignore[arg-type]


def test_a_counterpart_needs_no_test_images(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val_data.npz").unlink()
    place = {"public_name": PublicName.imagenet32, "public_path": str(tmp_path)}
    assert len(Published(name="cifar10", class_counts=ClassCounts.uniform, **place).public()) == 30  # type: ignore[arg-type]


def test_the_public_counterpart_of_cifar10_is_imagenet(tmp_path):
    images = write_imagenet(tmp_path)
    place = {"public_name": PublicName.imagenet32, "public_path": str(tmp_path)}
    dataset = Published(name="cifar10", class_counts=ClassCounts.uniform, **place)  # type: ignore[arg-type]
    assert np.array_equal(dataset.public().images, images[:30])
    assert dataset.num_public == 1_281_167
    assert dataset.public_classes[999] == "n89999001"


def test_the_public_counterpart_of_mnist_is_svhn_grey_and_small(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    labels = np.arange(12) % 10
    images = np.broadcast_to(RNG.integers(0, 256, (12, 1, 1, 3)), (12, 32, 32, 3)).astype(np.uint8)
    from_1_to_10 = np.where(labels == 0, 10, labels)[:, None]
    savemat(tmp_path / "train_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": from_1_to_10})
    place = {"public_name": PublicName.svhn, "public_path": str(tmp_path)}
    public = Published(name="mnist", class_counts=ClassCounts.uniform, **place).public()  # type: ignore[arg-type]
    assert public.images.shape == (12, 28, 28, 1)
    assert public.labels.tolist() == labels.tolist()
    luma = images[:, 0, 0].astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(public.images.astype(float) - luma.reshape(-1, 1, 1, 1)).max() <= 1.01


def test_images_conform_to_a_shape():
    grey = RNG.integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
    assert conform(grey, (8, 8, 1)) is grey
    rgb = conform(grey, (8, 8, 3))
    assert np.array_equal(rgb, np.repeat(grey, 3, axis=3))
    half = conform(np.full((1, 8, 8, 3), 77, np.uint8), (4, 6, 3))
    assert half.shape == (1, 4, 6, 3)
    assert np.unique(half).tolist() == [77]
