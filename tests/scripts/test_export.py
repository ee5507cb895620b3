"""A release in the forms of others: read back by their own library, pixel for pixel, and by this program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import exports
from data.samples import SampleSet
from data.shards import save_release
from disk import sha256_of
from scripts import export
from store.seal import seal, sealed
from tests.data.test_folder import folder as own_images
from tests.rejects import rejects

CLASSES = ["zebra", "ant/bee", "Ant"]  # neither in alphabetical order nor names that every folder can have
FORMS = ["imagefolder", "parquet", "webdataset"]
DOCUMENT = {"private": True, "dataset": "mine", "method": "pe", "epsilon": 1.0}


def make(folder: Path, classes: list[str], channels: int = 3, shard: int = 100) -> SampleSet:
    """A release of 30 different images."""
    rng = np.random.default_rng(0)
    samples = SampleSet(rng.integers(0, 256, (30, 8, 6, channels), np.uint8), np.arange(30) % len(classes), len(classes))
    folder.mkdir()
    save_release(samples, folder, shard)
    (folder / "grid.png").write_bytes(b"picture")
    words = f"# Words\n\n{export.PICTURE}\n\nMore.\n\n## {export.USE}\n\nsamples.npz\n"
    (folder / "README.md").write_text(f"---\nlicense: mine\n---\n\n{words}")
    seal(folder, {**DOCUMENT, "classes": classes, "num_samples": 30})
    return samples


def call(form: str, *more: str) -> Path:
    export.main(["release=release", "to=out", f"format={form}", *more])
    return Path("out").resolve()


@pytest.fixture
def loaded(here, monkeypatch):
    """The exported folder as `datasets` loads it, without a network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def load(folder: Path) -> Any:
        return datasets.load_dataset(str(folder), cache_dir=str(here / "cache"), split="train")

    return load


def same(ours: SampleSet, images: list[np.ndarray], labels: list[int]) -> bool:
    """In any order."""
    theirs = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    return theirs == {image.tobytes(): label for image, label in zip(ours.images, ours.labels.tolist(), strict=True)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_datasets_loads_every_form(form, channels, here, loaded):
    samples = make(here / "release", CLASSES, channels)
    found = loaded(call(form, "shard=12"))
    image, label = ("png", "cls") if form == "webdataset" else ("image", "label")
    shape = samples.images.shape[1:]
    assert same(samples, [np.asarray(row[image]).reshape(shape) for row in found], found[label])
    if form == "webdataset":
        assert [row["name"] for row in found["json"]] == [CLASSES[number] for number in found["cls"]]
    else:
        expected = CLASSES if form == "parquet" else exports.folder_names(CLASSES)
        assert found.features["label"].names == expected


def test_datasets_loads_a_folder_of_one_class_which_needs_no_label(here, loaded):
    samples = make(here / "release", ["image"])
    found = loaded(call("imagefolder"))
    assert found.column_names == ["image"]
    assert same(samples, [np.asarray(row["image"]) for row in found], [0] * 30)


@pytest.mark.parametrize("form", FORMS)
def test_this_program_reads_every_form_as_images_of_one_s_own(form, here):
    samples = make(here / "release", ["a", "b", "c"], shard=11)  # the release itself in three files
    read = own_images(call(form, "shard=12"), image_size=8, fit="pad", test_fraction=0.0001).train()
    images = np.pad(samples.images, ((0, 0), (0, 0), (1, 1), (0, 0)))
    label_of = {image.tobytes(): label for image, label in zip(images, samples.labels, strict=True)}
    assert len(read) >= 29  # one may be held out
    assert read.num_classes == 3
    assert [label_of[image.tobytes()] for image in read.images] == read.labels.tolist()


@pytest.mark.parametrize(("form", "files"), [("parquet", 3), ("webdataset", 3)])
def test_files_hold_as_many_as_asked_for(form, files, here):
    make(here / "release", CLASSES, shard=7)
    assert len(list((call(form, "shard=12") / "data").iterdir())) == files


def test_the_card_and_the_certificate_go_with_the_images(here):
    make(here / "release", CLASSES)
    out = call("parquet")
    text = (out / "README.md").read_text()
    assert "# Words\n\nMore." in text
    assert "grid.png" not in text
    assert "data/train-*.parquet" in text
    assert "samples.npz" not in text
    document = json.loads((out / "privacy.json").read_text())
    assert document.keys() >= {"epsilon", "classes", "accounting"}
    assert document["exported"]["of_certificate"] == sha256_of(here / "release" / "privacy.json")
    assert document["files"] == sealed(out)
    assert any(name.startswith("data/") for name in document["files"])


def test_a_release_from_before_cards_and_names_of_classes_goes_by_numbers(here):
    make(here / "release", CLASSES)
    (here / "release" / "README.md").unlink()
    seal(here / "release", DOCUMENT)
    assert sorted(path.name for path in (call("imagefolder") / "train").iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["3", "8"], ["3", "8"]),
        (["Größe 1", "a-b"], ["Größe 1", "a-b"]),
        (["../x", "b"], ["000-x", "001-b"]),
        (["a", "A"], ["000-a", "001-A"]),
        ([".", ""], ["000", "001"]),
        (["__a", "trailing."], ["000-a", "001-trailing"]),
    ],
)
def test_folders_have_names_that_every_system_takes(classes, names):
    assert exports.folder_names(classes) == names


def test_one_file_of_samples_is_in_memory_at_a_time(here, monkeypatch):
    make(here / "release", CLASSES, shard=10)
    read, load = [], SampleSet.load

    def noted(path: Path) -> SampleSet:
        read.append(path.name)
        return load(path)

    monkeypatch.setattr(SampleSet, "load", noted)
    rows = exports.rows(export.sample_files(here / "release"))
    for _ in range(10):
        next(rows)
    assert read == ["samples_00000.npz"]
    next(rows)
    assert len(read) == 2


def test_an_export_that_breaks_off_leaves_nothing_that_looks_whole_and_starts_anew(here, monkeypatch):
    samples = make(here / "release", CLASSES)
    with monkeypatch.context() as patch:
        patch.setattr(exports, "png", lambda image: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call("imagefolder")
    assert not Path("out").exists()
    assert len(list(call("imagefolder").rglob("*.png"))) == len(samples)
    assert not Path(".out.exporting").exists()


def test_what_cannot_be_exported_is_refused(here):
    with rejects("release", "release"):
        call("parquet")
    make(here / "release", CLASSES)
    with rejects("shard", 0):
        call("parquet", "shard=0")
    with rejects("to", "release/inner"):
        export.main(["release=release", "to=release/inner", "format=parquet"])
    (here / "out").mkdir()
    (here / "out" / "mine.txt").write_text("kept")
    with rejects("to", "out"):
        call("parquet")
    (here / "release" / "samples.npz").write_bytes(b"PK")
    with rejects("release", "release"):
        export.main(["release=release", "to=other", "format=parquet"])
    seal(here / "release", DOCUMENT)
    with rejects("release", "release"):  # no samples can be read
        export.main(["release=release", "to=other", "format=parquet"])
    seal(here / "release", {**DOCUMENT, "private": False, "reason": "noise is known"})
    with rejects("release", "release", "noise is known"):
        export.main(["release=release", "to=other", "format=parquet"])
    (here / "release" / "samples.npz").unlink()
    seal(here / "release", DOCUMENT)
    with rejects("release", "release", "no samples"):
        export.main(["release=release", "to=other", "format=parquet"])
