"""Datasets of image files with official lists: Camelyon17 and CelebA, from small files of the true formats."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset import ClassCounts
from data.datasets.camelyon17 import Camelyon17
from data.datasets.celeba import CelebA
from data.decoding import OnBad
from data.listed import uniform
from errors import InputError
from tests.rejects import ANY, rejects

RNG = np.random.default_rng(0)
ROWS = [  # patient, node, x, y, tumour, slide, centre, split
    (4, 4, 3328, 21792, 1, 10, 0, 0),
    (4, 4, 3200, 22272, 0, 10, 0, 1),
    (17, 1, 1, 2, 0, 11, 3, 0),
    (40, 2, 5, 6, 1, 20, 2, 0),
    (22, 0, 7, 8, 1, 30, 1, 0),
]


def write_camelyon(root: Path) -> dict[tuple[int, int], np.ndarray]:
    header = ",patient,node,x_coord,y_coord,tumor,slide,center,split"
    lines = [f"{i},{patient:03d}," + ",".join(map(str, rest)) for i, (patient, *rest) in enumerate(ROWS)]
    (root / "metadata.csv").write_text("\n".join([header, *lines]) + "\n")
    images = {}
    for patient, node, x, y, *_ in ROWS:
        folder = root / "patches" / f"patient_{patient:03d}_node_{node}"
        folder.mkdir(parents=True, exist_ok=True)
        images[x, y] = RNG.integers(0, 256, (96, 96, 4)).astype(np.uint8)
        images[x, y][..., 3] = 255
        Image.fromarray(images[x, y]).save(folder / f"patch_patient_{patient:03d}_node_{node}_x_{x}_y_{y}.png")
    return images


@pytest.fixture
def camelyon(tmp_path, monkeypatch) -> Camelyon17:
    monkeypatch.setattr(Camelyon17, "num_train", 2)
    return Camelyon17(path=str(tmp_path), class_counts=ClassCounts.uniform, image_size=32)


def test_camelyon_splits_are_those_of_wilds(tmp_path, camelyon):
    images = write_camelyon(tmp_path)
    camelyon.check()
    camelyon.prepare()
    private, test = camelyon.private(), camelyon.test()
    assert (private.labels.tolist(), test.labels.tolist()) == ([1, 0], [1])
    resized = Image.fromarray(images[3328, 21792][..., :3]).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(private.images[0], np.asarray(resized))
    assert camelyon.facts()["classes"] == ["no tumour", "tumour"]


def test_a_fraction_of_official_files_is_chosen_by_name(tmp_path, camelyon):
    """Which of two are in does not depend on the order of rows, nor on the other one."""
    write_camelyon(tmp_path)
    names = camelyon.lists()[0].names
    first, second = (uniform(name, "dataset.fraction") for name in names)
    part = dataclasses.replace(camelyon, fraction=(first + second) / 2)
    part.check()
    part.prepare()
    assert part.num_private == len(part.private()) == 1
    assert part.private().labels.tolist() == [int(first < second)]  # of labels 1, 0
    assert "1 of the 2 training images of camelyon17: fraction" in part.chosen


def test_saturation_moves_private_and_test_images_alike(tmp_path, camelyon):
    write_camelyon(tmp_path)
    as_they_are = camelyon.private().images
    grey, vivid = (dataclasses.replace(camelyon, saturation=factor) for factor in (0.0, 2.0))
    for part in (grey.private(), grey.test()):
        assert np.ptp(part.images.astype(int), axis=3).max() == 0
    assert np.ptp(vivid.private().images.astype(int), axis=3).mean() > np.ptp(as_they_are.astype(int), axis=3).mean()
    assert vivid.train().images is vivid.train().images  # held once


def test_another_number_of_patches_is_not_camelyon17(tmp_path, camelyon, monkeypatch):
    write_camelyon(tmp_path)
    monkeypatch.setattr(Camelyon17, "num_train", 302_436)
    with rejects("dataset.path", tmp_path, "302,436"):
        camelyon.prepare()


def test_a_damaged_patch_is_named_or_skipped(tmp_path, camelyon):
    write_camelyon(tmp_path)
    extra = next((tmp_path / "patches").rglob("*x_1_*.png"))
    extra.write_bytes(extra.read_bytes()[:200])
    with pytest.raises(InputError, match=r"x_1_y_2\.png is no readable image"):
        camelyon.prepare()
    skipping = dataclasses.replace(camelyon, on_bad=OnBad.skip)
    skipping.prepare()
    private = skipping.private()  # whether there is a run does not depend on one of its images
    assert (len(private), private.num_classes) == (skipping.num_private - 1, 2)


HARM = {
    "missing": (lambda text: None, "metadata.csv"),
    "latin": (lambda text: text.encode().replace(b"004", b"\xe9"), "metadata.csv"),
    "nothing": (lambda text: b"", "column patient"),
    "no row": (lambda text: text.splitlines()[0].encode(), "no private image"),
    "cut": (lambda text: text.encode()[:-5], "row 6"),
}


def planned_and_prepared(dataset: Camelyon17) -> None:
    dataset.check()
    dataset.facts()
    dataset.prepare()


@pytest.mark.parametrize("keep", [None, ["tumour"]])
@pytest.mark.parametrize(("harm", "message"), HARM.values(), ids=HARM)
def test_wrong_metadata_are_one_line(harm, message, keep, tmp_path, monkeypatch):
    write_camelyon(tmp_path)
    place = tmp_path / "metadata.csv"
    harmed = harm(place.read_text())
    place.unlink() if harmed is None else place.write_bytes(harmed)
    dataset = Camelyon17(path=str(tmp_path), class_counts=ClassCounts.uniform, keep_classes=keep)
    with rejects("dataset.path", ANY, message):
        planned_and_prepared(dataset)


def write_celeba(root: Path) -> dict[str, np.ndarray]:
    (root / "img_align_celeba").mkdir(parents=True)
    images = {f"{i:06d}.jpg": np.full((218, 178, 3), 20 * i, np.uint8) for i in range(1, 7)}
    for name, pixels in images.items():
        Image.fromarray(pixels).save(root / "img_align_celeba" / name, quality=100)
    attributes = [f"{name} {-1 if i % 3 else 1}  {1 if i % 2 else -1}" for i, name in enumerate(images)]
    (root / "list_attr_celeba.txt").write_text("\n".join(["6", "Bald Male ", *attributes]) + "\n")
    parts = [0, 0, 0, 1, 2, 2]
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(images, parts, strict=True)))
    return images


def test_celeba_is_split_as_its_authors_did_and_labelled_by_an_attribute(tmp_path, monkeypatch):
    images = write_celeba(tmp_path)
    monkeypatch.setattr(CelebA, "num_train", 3)
    dataset = CelebA(path=str(tmp_path), class_counts=ClassCounts.uniform)
    dataset.check()
    dataset.prepare()
    private, test = dataset.private(), dataset.test()
    assert (private.labels.tolist(), test.labels.tolist()) == ([0, 1, 0], [0, 1])
    assert dataset.classes == ["not male", "male"]
    assert private.images.shape == (3, 32, 32, 3)
    assert np.abs(private.images[1].astype(int) - images["000002.jpg"][0, 0]).max() <= 2
    with rejects("dataset.attribute", "Smiling", "Bald, Male"):
        dataclasses.replace(dataset, attribute="Smiling").prepare()
    (tmp_path / "list_eval_partition.txt").write_text("000009.jpg 0\n")
    with rejects("dataset.path", tmp_path, "list_eval_partition.txt"):
        dataclasses.replace(dataset).prepare()


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""], ids=["missing", "latin", "nothing"])
def test_wrong_lists_of_celeba_are_one_line(content, tmp_path):
    write_celeba(tmp_path)
    place = tmp_path / "list_attr_celeba.txt"
    place.unlink() if content is None else place.write_bytes(content)
    with rejects("dataset.attribute" if content == b"" else "dataset.path"):
        _ = CelebA(path=str(tmp_path), class_counts=ClassCounts.uniform, keep_classes=["male"]).num_private
