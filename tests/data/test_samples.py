"""The sample file: what is saved reads back, and anything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.samples import SampleFileError, SampleSet

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
LABELS = np.arange(12, dtype=np.int64) % 5


def example(**changes: Any) -> SampleSet:
    return SampleSet(**{"images": IMAGES, "labels": LABELS, "num_classes": 7, **changes})


@pytest.mark.parametrize(
    "samples",
    [
        example(),
        example(public_labels=LABELS + 3, provenance={"method": "pe", "rounds": [1, 2]}),
        example(images=np.repeat(IMAGES, 3, axis=3)),
        example(images=IMAGES[:0], labels=LABELS[:0]),
    ],
    ids=["plain", "conditioned", "colour", "empty"],
)
def test_what_is_saved_reads_back(samples, tmp_path):
    samples.save(tmp_path / "samples.npz")
    back = SampleSet.load(tmp_path / "samples.npz")
    assert np.array_equal(back.images, samples.images)
    assert np.array_equal(back.labels, samples.labels)
    assert np.array_equal(np.asarray(back.public_labels), np.asarray(samples.public_labels))
    assert (back.images.dtype, back.labels.dtype) == (np.uint8, np.int64)
    assert (back.num_classes, back.provenance) == (7, samples.provenance)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


def test_the_file_is_plain_numpy(tmp_path):
    example().save(tmp_path / "samples.npz")
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"], IMAGES)
        assert np.array_equal(file["labels"], LABELS)


def test_an_interrupted_save_leaves_the_file_before_it(tmp_path, monkeypatch):
    example().save(tmp_path / "samples.npz")

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        example(images=255 - IMAGES).save(tmp_path / "samples.npz")
    assert np.array_equal(SampleSet.load(tmp_path / "samples.npz").images, IMAGES)


def test_rows_keep_their_labels_and_classes():
    samples = example(public_labels=LABELS + 3, provenance={"round": 2})
    some = samples[np.array([3, 3, 0])]
    assert len(some) == 3
    assert np.array_equal(some.images, IMAGES[[3, 3, 0]])
    assert some.labels.tolist() == [3, 3, 0]
    assert some.public_labels is not None
    assert some.public_labels.tolist() == [6, 6, 3]
    assert (some.num_classes, some.provenance) == (7, {"round": 2})


WRONG = {
    "float images": (dict(images=IMAGES / 255), "images: float64"),
    "no channel": (dict(images=IMAGES[..., 0]), r"images: uint8 \[12, 8, 8\]"),
    "two channels": (dict(images=np.repeat(IMAGES, 2, axis=3)), r"images: uint8 \[12, 8, 8, 2\]"),
    "one image less": (dict(images=IMAGES[1:]), r"labels: int64 \[12\] is not int64 \[11\]"),
    "int32 labels": (dict(labels=LABELS.astype(np.int32)), "labels: int32"),
    "uint8 labels": (dict(labels=LABELS.astype(np.uint8)), "labels: uint8"),
    "label columns": (dict(labels=LABELS[:, None]), r"labels: int64 \[12, 1\]"),
    "label too large": (dict(labels=LABELS + 3), "labels: not all inside 0 … 6"),
    "label below 0": (dict(labels=LABELS - 1), "labels: not all inside 0 … 6"),
    "public labels of others": (dict(public_labels=LABELS[1:]), r"public_labels: int64 \[11\]"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_set_is_refused_in_memory_and_on_disk(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        example(**changes)
    path = tmp_path / "wrong.npz"
    np.savez(path, **{"images": IMAGES, "labels": LABELS, "num_classes": np.int64(7), **changes})
    with pytest.raises(SampleFileError, match=rf"wrong\.npz: {message}"):
        SampleSet.load(path)


def saved(path: Path) -> bytes:
    example().save(path)
    return path.read_bytes()


def damaged(path: Path) -> None:
    content = bytearray(saved(path))
    content[60:200] = bytes(140)
    path.write_bytes(content)


BAD_FILES = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an npz"),
    "truncated": lambda path: path.write_bytes(saved(path)[:-100]),
    "damaged": damaged,
    "a folder": lambda path: path.mkdir(),
    "one npy array": lambda path: np.save(path.open("wb"), IMAGES),
    "no images": lambda path: np.savez(path, labels=LABELS),
    "no labels": lambda path: np.savez(path, images=IMAGES),
    "pickled labels": lambda path: np.savez(path, images=IMAGES, labels=LABELS.astype(object)),
    "text labels": lambda path: np.savez(path, images=IMAGES, labels=LABELS.astype(str)),
    "classes not a number": lambda path: np.savez(path, images=IMAGES, labels=LABELS, num_classes="many"),
    "uint8 labels, no number of classes": lambda path: np.savez(path, images=IMAGES, labels=LABELS.astype(np.uint8)),
    "endless classes": lambda path: np.savez(path, images=IMAGES, labels=LABELS, num_classes=np.inf),
    "provenance not JSON": lambda path: np.savez(path, images=IMAGES, labels=LABELS, provenance="{"),
}


@pytest.mark.parametrize("write", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_by_name(write, tmp_path):
    write(tmp_path / "bad.npz")
    with pytest.raises(SampleFileError, match=r"bad\.npz: "):
        SampleSet.load(tmp_path / "bad.npz")


def test_a_file_without_extras_is_enough(tmp_path):
    np.savez(tmp_path / "plain.npz", images=IMAGES, labels=LABELS)
    samples = SampleSet.load(tmp_path / "plain.npz")
    assert (samples.num_classes, samples.public_labels, samples.provenance) == (5, None, {})
