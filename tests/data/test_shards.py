"""A release in many files: the same set as in one, and never more than a file of it in memory."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data.dataset import ClassCounts
from data.datasets.digits import Digits
from data.samples import SampleFileError, SampleSet
from data.shards import Shards, open_release, save_release
from models.classifiers.networks import ClassifierName
from models.classifiers.training import Recipe, accuracy, logits, train
from tests.rejects import rejects

SHAPE = 8, 8, 1
SIZES = 10, 10, 5
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Image i has the level i, and the class i modulo 10."""
    start = 0
    for number, size in enumerate(SIZES):
        rows = np.arange(start, start + size)
        images = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (size, *SHAPE))
        SampleSet(images.copy(), rows % 10, 10).save(tmp_path / f"samples_{number:05d}.npz")
        start += size
    return tmp_path


@pytest.fixture
def opened(folder, monkeypatch) -> list[str]:
    """Names of the files that are read, in order."""
    names: list[str] = []
    load = SampleSet.load

    def recorded(path: Path) -> SampleSet:
        names.append(path.stem[-1])
        return load(path)

    monkeypatch.setattr(SampleSet, "load", recorded)
    return names


def levels(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_rows_are_counted_through_the_files(folder):
    shards = Shards.open(folder, SHAPE)
    assert len(shards) == 25
    assert levels(shards.images) == list(range(25))
    assert shards.labels.tolist() == [i % 10 for i in range(25)]
    some = shards[np.array([20, 3, 12])]
    assert (len(some), levels(some.images), some.labels.tolist()) == (3, [20, 3, 12], [0, 3, 2])
    assert levels(some[1:].images) == [3, 12]


def test_in_every_pass_each_row_comes_once_and_each_file_is_read_once(folder, opened):
    shards = Shards.open(folder, SHAPE)
    opened.clear()
    orders = []
    batches = shards.batches(5, torch.Generator().manual_seed(0))
    for _ in range(6):
        seen = [level for images, _ in islice(batches, 5) for level in levels(images)]
        orders.append(tuple(seen))
        assert sorted(seen) == list(range(25))
    assert len(set(orders)) == 6
    assert len({order[0] // 10 for order in orders}) > 1  # the order of files changes too
    assert len(opened) <= 18


def test_batches_may_straddle_files_and_keep_labels_with_images(folder):
    batches = Shards.open(folder, SHAPE)[np.arange(2, 25, 2)].batches(7, torch.Generator().manual_seed(0))
    seen = []
    for images, labels in islice(batches, 12):
        assert len(images) == 7
        assert labels.tolist() == [level % 10 for level in levels(images)]
        seen += levels(images)
    assert np.bincount(seen, minlength=25).tolist() == [7 if i % 2 == 0 and i >= 2 else 0 for i in range(25)]


def test_a_pass_of_logits_reads_each_file_once(folder, opened):
    shards = Shards.open(folder, SHAPE)
    opened.clear()
    network = torch.nn.Flatten()
    assert np.allclose(logits(network, shards, CPU, batch_size=2)[:, 0], np.arange(25) / 127.5 - 1)
    assert "".join(opened) == "012"


def test_a_classifier_trained_on_shards_is_one_trained_on_the_set(folder):
    recipe = Recipe(classifier=ClassifierName.cnn, steps=20, batch_size=10, augmentations=[], learning_rate=0.05)
    shards = Shards.open(folder, SHAPE)
    shards.labels[:] = shards.files.labels[:] = np.arange(25) >= 12
    network = train(shards, recipe, seed=0, device=CPU, advance=lambda count: None)
    assert accuracy(network, shards, CPU) >= 0.9
    again = train(shards, recipe, seed=0, device=CPU, advance=lambda count: None)
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), again.parameters(), strict=True))


def test_the_digest_is_that_of_pixels_labels_and_rows(folder, tmp_path):
    shards = Shards.open(folder, SHAPE)
    digests = {shards.digest(), shards[1:].digest(), shards[::-1].digest()}
    part = SampleSet.load(folder / "samples_00001.npz")
    part.images[0, 0, 0, 0] += 1
    part.save(folder / "samples_00001.npz")
    digests.add(Shards.open(folder, SHAPE).digest())
    assert len(digests) == 4


def test_images_are_made_to_fit(folder):
    assert Shards.open(folder, (4, 4, 3)).images.shape == (25, 4, 4, 3)


def test_files_that_are_no_shards_of_one_set_are_refused(folder):
    SampleSet(np.zeros((2, *SHAPE), np.uint8), np.zeros(2, np.int64), 3).save(folder / "samples_00003.npz")
    with pytest.raises(SampleFileError, match="num_classes=3, unlike"):
        Shards.open(folder, SHAPE)
    (folder / "samples_00003.npz").write_bytes(b"torn")
    with rejects("release", folder, "samples_00003.npz"):
        open_release(folder, digits())


def test_a_release_is_a_folder_of_one_file_or_of_many(folder, tmp_path):
    assert isinstance(open_release(folder, digits()), Shards)
    whole = open_release(folder, digits())[:7]
    SampleSet(whole.images, whole.labels, 10).save(folder / "samples.npz")
    for release in (folder, folder / "samples.npz"):
        found = open_release(release, digits())
        assert type(found) is SampleSet
        assert found.images.tolist() == whole.images.tolist()
    with rejects("release", tmp_path / "nothing"):
        open_release(tmp_path / "nothing", digits())


def digits() -> Digits:
    return Digits(class_counts=ClassCounts.uniform)


@pytest.mark.parametrize(("shard", "files"), [(25, ["samples.npz"]), (10, [f"samples_{i:05d}.npz" for i in range(3)])])
def test_a_large_release_is_written_in_many_files(folder, tmp_path, shard, files):
    whole = Shards.open(folder, SHAPE)
    out = tmp_path / "out"
    out.mkdir()
    save_release(SampleSet(whole.images, whole.labels, 10), out, shard)
    assert sorted(path.name for path in out.iterdir()) == files
    again = open_release(out, Digits(class_counts=ClassCounts.uniform))
    assert np.array_equal(again.images, whole.images)
    assert np.array_equal(again.labels, whole.labels)
