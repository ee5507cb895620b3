"""What is listed of folders, zips and npz, and how much is held while it is decoded."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.decoding import PICTURES, OnBad, decode
from data.layouts import list_images
from errors import InputError
from tests.command import HANGS
from tests.data.test_folder import LABELS, class_folders, folder, members, picture, png, with_json, zipped
from tests.rejects import rejects

IMAGES = np.stack([picture() for _ in range(4)])


def npz(root: Path, **changes) -> Path:
    arrays = {"images": IMAGES, "labels": np.array([0, 1, 1, 0]), **changes}
    np.savez(root / "x.npz", **{name: array for name, array in arrays.items() if array is not None})
    return root / "x.npz"


def test_links_are_followed(tmp_path):
    class_folders(tmp_path / "mine", 4)
    (tmp_path / "mine" / "cat").rename(tmp_path / "elsewhere")
    (tmp_path / "mine" / "cat").symlink_to(tmp_path / "elsewhere")
    listing = list_images(tmp_path / "mine")
    assert (listing.classes, len(listing)) == (["ant", "cat"], 4)
    assert len(decode(listing, (8, 8, 3)).samples) == 4


@pytest.mark.parametrize("target", ["../ant", ".."])
def test_a_folder_that_is_reached_twice_is_named(target, tmp_path):
    (class_folders(tmp_path) / "cat" / "more").symlink_to(target)
    with pytest.raises(InputError, match="is a link to a folder that is there as"):
        list_images(tmp_path)


@pytest.mark.parametrize("kind", ["dangling", "pipe"])
def test_what_is_no_file_is_named_or_skipped(kind, tmp_path):
    place = class_folders(tmp_path) / "ant" / "x.png"
    place.symlink_to("nowhere.png") if kind == "dangling" else os.mkfifo(place)
    listing = list_images(tmp_path)
    with pytest.raises(InputError, match=r"ant/x\.png is no readable image \(a link to nothing, or no ordinary file\)"):
        decode(listing, (8, 8, 3))
    assert len(decode(listing, (8, 8, 3), OnBad.skip).bad) == 1


def test_hidden_folders_are_no_classes(tmp_path):
    for name in (".git", "__MACOSX"):
        (class_folders(tmp_path) / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    assert list_images(tmp_path).classes == ["ant", "cat"]


def test_names_may_be_any_bytes_and_hold_brackets(tmp_path):
    (class_folders(tmp_path, 60) / "ant" / os.fsdecode(b"caf\xe9.png")).write_bytes(png(picture()))
    (tmp_path / "ant" / "[bold].png").write_bytes(b"")
    dataset = folder(tmp_path, on_bad=OnBad.skip)
    dataset.check()
    dataset.prepare()
    assert len(dataset.private()) + len(dataset.test()) == 61
    assert dataset.notes()[-1].endswith("ant/[bold].png is no readable image (of no known format)")


def test_zips_of_windows_are_read(tmp_path):
    assert list_images(zipped(tmp_path, {"a\\x.png": png(picture())})).names == ["a/x.png"]


def named(root: Path, classes) -> Path:
    files = with_json(LABELS)
    return zipped(root, {**files, "dataset.json": json.dumps({"labels": LABELS, "classes": classes}).encode()})


def test_classes_of_an_edm_archive_may_have_names(tmp_path):
    assert list_images(named(tmp_path, ["cat", "dog"])).classes == ["cat", "dog"]


@pytest.mark.parametrize("classes", [["cat"], ["cat", "cat"], ["cat", 1], "ab", 2, [["cat"], ["dog"]], ["cat", "dog", "eel"]])
def test_wrong_names_of_classes_are_refused(classes, tmp_path):
    with pytest.raises(InputError, match=r"images\.zip .*dataset\.json has `classes` that are no 2 different names"):
        list_images(named(tmp_path, classes))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64, np.int64])
def test_labels_are_whole_numbers_of_any_width(kind, tmp_path):
    listing = list_images(npz(tmp_path, labels=np.array([0, 1, 1, 0], kind)))
    assert (listing.labels.tolist(), listing.labels.dtype) == ([0, 1, 1, 0], np.int64)
    assert np.array_equal(decode(listing, (8, 8, 3)).samples.images, IMAGES)


WRONG = {
    "float labels": (dict(labels=np.array([0.0, 1, 1, 0])), r"labels are float64 \[4\], not whole numbers \[4\]"),
    "few labels": (dict(labels=np.array([0, 1])), r"labels are int64 \[2\], not whole numbers \[4\]"),
    "a large label": (dict(labels=np.array([0, 1, 1, 2**63], np.uint64)), r"class 2 has no image; .* \(image 3\)"),
    "a negative label": (dict(labels=np.array([0, 1, 1, -1])), "labels are not all inside 0 … 1"),
    "many classes": (dict(num_classes=10**12), "class 2 has no image; classes go to 999999999999"),
    "few classes": (dict(num_classes=1), "labels are not all inside 0 … 0"),
    "no images": (dict(images=None), "no npz with images and labels .*images"),
    "float images": (dict(images=IMAGES / 255), r"images are float64 \[4, 8, 8, 3\], not uint8 \[N, H, W, 1 or 3\]"),
    "channels first": (dict(images=IMAGES.transpose(0, 3, 1, 2)), r"images are uint8 \[4, 3, 8, 8\]"),
    "no height": (dict(images=IMAGES[:, :0]), r"images are uint8 \[4, 0, 8, 3\]"),
    "nothing": (dict(images=IMAGES[:0], labels=np.zeros(0, int)), "holds no images"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_named(changes, message, tmp_path):
    with pytest.raises(InputError, match=rf"x\.npz .*{message}") as told:
        list_images(npz(tmp_path, **changes))
    assert "on_bad" not in str(told.value)


def test_damaged_pixels_are_told_of_the_array(tmp_path):
    content = bytearray(npz(tmp_path, images=np.full((4, 64, 64, 3), 7, np.uint8)).read_bytes())
    content[content.find(b"\7" * 999)] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz .*images cannot be read \(Bad CRC"):
        decode(list_images(tmp_path / "x.npz"), (8, 8, 3), OnBad.skip)


def test_no_more_pixels_are_decoded_at_a_time_than_the_largest_picture_may_have(tmp_path, monkeypatch):
    class_folders(tmp_path, 40)
    lock, decoding, most, arrivals = threading.Lock(), 0, 0, 0
    two = threading.Barrier(2, timeout=HANGS)  # at which the first two pictures wait for each other
    upright = ImageOps.exif_transpose

    def counted(image: Image.Image, in_place: bool) -> None:
        nonlocal decoding, most, arrivals
        with lock:
            decoding, arrivals = decoding + 1, arrivals + 1
            most, meets = max(most, decoding), arrivals <= 2
        upright(image, in_place=True)
        if meets:
            two.wait()
        threading.Event().wait(0.001)  # in which a third would come, if it may
        with lock:
            decoding -= 1

    monkeypatch.setattr(ImageOps, "exif_transpose", counted)
    monkeypatch.setattr("data.decoding.MAX_PIXELS", 2 * 64)
    decode(list_images(tmp_path), (8, 8, 3))
    assert most == 2


def test_what_decoding_holds_is_known_before(tmp_path):
    place = npz(tmp_path, images=np.repeat(IMAGES, 16, axis=1))
    from_arrays = folder(place, test_path=str(place))
    assert from_arrays.decoding_bytes == 4 * 128 * 8 * 3
    assert folder(class_folders(tmp_path / "mine")).decoding_bytes == PICTURES


def test_a_fraction_of_which_nothing_can_be_read_is_an_empty_dataset(tmp_path):
    """Its last image would otherwise decide whether there is a run."""
    test = str(class_folders(tmp_path / "test", 4))
    dataset = folder(class_folders(tmp_path / "mine", 30), test_path=test, fraction=0.1, on_bad=OnBad.skip)
    for name in members(dataset):
        (tmp_path / "mine" / name).write_bytes(b"")
    dataset.prepare()
    assert (len(dataset.private()), dataset.num_private) == (0, len(members(dataset)))
    assert dataset.num_private > 0


@pytest.mark.parametrize("part", ["test", "public"])
def test_other_images_of_which_none_can_be_read_are_refused(part, tmp_path):
    bad = class_folders(tmp_path / "bad", 4)
    for path in bad.rglob("*.png"):
        path.write_bytes(b"")
    dataset = folder(class_folders(tmp_path / "mine", 30), **{f"{part}_path": str(bad)}, on_bad=OnBad.skip)
    with rejects(f"dataset.{'path' if part == 'test' else 'public_path'}", tmp_path / "bad", "that can be read"):
        dataset.prepare() if part == "test" else dataset.public()


def test_many_images_are_decoded_into_a_file_without_a_name(tmp_path, monkeypatch):
    class_folders(tmp_path / "mine", 40)
    monkeypatch.chdir(tmp_path)
    plain = decode(list_images(tmp_path / "mine"), (8, 8, 3)).samples
    in_memory = folder(tmp_path / "mine").bytes
    for module in ("decoding", "listed"):
        monkeypatch.setattr(f"data.{module}.IN_MEMORY", 20 * 8 * 8 * 3)
    mapped = decode(list_images(tmp_path / "mine"), (8, 8, 3)).samples
    assert isinstance(mapped.images, np.memmap)
    assert mapped.digest() == plain.digest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    large = folder(tmp_path / "mine")
    assert in_memory == large.bytes + large.file_bytes == 40 * 8 * 8 * 3
    assert large.bytes < in_memory
