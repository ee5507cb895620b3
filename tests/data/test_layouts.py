"""Real folders as people have them: every layout is understood, and one bad variant of each is named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conf.compose import compose
from data.decoding import Fit, Reading, decode
from data.layouts import layout_of, list_images
from data.tables import Columns
from dp_finetune.method import DPDiffusion
from models.public.unet import UNet
from tests.command import call, output_of
from tests.data.test_folder import folder, picture, png, zipped
from tests.rejects import ANY, rejects

PNG = png(picture())


def put(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def table(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def found(path: Path, columns: Columns = Columns()) -> tuple[list[str], dict[str, str]]:  # noqa: B008
    """Classes, and the class of each image."""
    listing = list_images(path, columns)
    return listing.classes, {name: listing.classes[label] for name, label in zip(listing.names, listing.labels, strict=True)}


TWO = {"ant/1.png": "ant", "cat/2.png": "cat"}


def test_other_files_beside_class_folders_are_left_out_and_counted(tmp_path):
    put(tmp_path, {**dict.fromkeys(TWO, PNG), "README.txt": "x", "LICENSE": "x", "ant/Thumbs.db": "x", "docs/a.pdf": "x"})
    assert found(tmp_path) == (["ant", "cat"], TWO)
    layout = layout_of(tmp_path)
    assert layout.kind == "class folders"
    assert layout.notes == [
        "files that are no images are left out: 1 .db, 1 .pdf, 1 .txt, 1 without an ending",
        "folders without an image are no classes: docs",
    ]


def test_an_image_beside_class_folders_is_named(tmp_path):
    put(tmp_path, {**dict.fromkeys(TWO, PNG), "loose.png": PNG})
    with rejects(None, ANY, "loose.png", "beside the class folders"):
        list_images(tmp_path)


@pytest.mark.parametrize("top", ["photos", "a/b"])
def test_an_archive_may_have_a_folder_around_everything(top, tmp_path):
    files = {f"{top}/{name}": PNG for name in TWO} | {"__MACOSX/photos/._1.png": b"x", f"{top}/.DS_Store": b"x"}
    assert found(zipped(tmp_path, files)) == (["ant", "cat"], TWO)


def test_an_archive_of_class_folders_alone_has_none_around_it(tmp_path):
    assert found(zipped(tmp_path, {"ant/1.png": PNG}))[0] == ["ant"]


@pytest.mark.parametrize("other", ["test", "val", "validation", "Test"])
def test_train_beside_test_is_split_as_it_lies(other, tmp_path):
    put(tmp_path, {f"{part}/{name}": PNG for part in ("train", other) for name in TWO})
    dataset = folder(tmp_path)
    dataset.check()
    dataset.prepare()
    assert (dataset.num_private, dataset.num_test, dataset.classes) == (2, 2, ["ant", "cat"])
    assert dataset.chosen == "all 2 training images of folder"


def test_test_is_taken_before_validation_which_a_note_says(tmp_path):
    put(tmp_path, {f"{part}/{name}": PNG for part in ("train", "val", "test") for name in TWO})
    put(tmp_path, {"test/cat/3.png": PNG})
    layout = layout_of(tmp_path)
    assert layout.test is not None
    assert (len(layout.test), layout.notes) == (3, ["val is not used"])


def test_a_test_folder_of_other_classes_is_refused(tmp_path):
    put(tmp_path, {f"train/{name}": PNG for name in TWO} | {"test/ant/1.png": PNG})
    with rejects(None, ANY, "have the classes ant, and the others ant, cat"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"annotated/1.png": PNG}, "annotated beside"),
        ({"1.png": PNG}, "1.png beside"),
        ({"labels.csv": "file,label"}, "labels.csv beside"),
        ({"training/ant/1.png": PNG}, "train and training"),
    ],
)
def test_what_lies_beside_train_and_is_no_part_is_refused(files, words, tmp_path):
    """Else test images would be private ones of a class of that name."""
    put(tmp_path, {f"{part}/{name}": PNG for part in ("train", "test") for name in TWO} | files)
    with rejects(None, ANY, words):
        list_images(tmp_path)


def test_other_names_of_parts_are_known_and_files_beside_them_are_left_out(tmp_path):
    put(tmp_path, {f"{part}/{name}": PNG for part in ("training_set", "Test-Set") for name in TWO})
    put(tmp_path, {"annotations/x.xml": "x", "README.md": "x"})
    layout = layout_of(tmp_path)
    assert layout.test is not None
    assert (len(layout.private), len(layout.test), layout.private.classes) == (2, 2, ["ant", "cat"])


def test_parts_without_train_are_refused(tmp_path):
    put(tmp_path, {f"{part}/{name}": PNG for part in ("val", "test") for name in TWO})
    with rejects(None, ANY, "no train"):
        list_images(tmp_path)


def test_folders_of_patients_below_the_class_are_entered(tmp_path):
    put(tmp_path, {"ant/p1/1.png": PNG, "ant/p2/1.png": PNG, "cat/p1/x/1.png": PNG})
    assert found(tmp_path) == (["ant", "cat"], {"ant/p1/1.png": "ant", "ant/p2/1.png": "ant", "cat/p1/x/1.png": "cat"})


def test_an_empty_class_folder_is_named(tmp_path):
    put(tmp_path, dict.fromkeys(TWO, PNG))
    (tmp_path / "bee").mkdir()
    with rejects(None, ANY, "class bee has no image"):
        list_images(tmp_path)


def test_images_without_a_folder_are_one_class(tmp_path):
    put(tmp_path, {"1.png": PNG, "2.JPG": PNG, "notes.txt": "x"})
    assert found(tmp_path) == (["images"], {"1.png": "images", "2.JPG": "images"})


def test_a_place_without_images_is_refused(tmp_path):
    put(tmp_path, {"notes.txt": "x"})
    with rejects(None, ANY, "holds no images"):
        list_images(tmp_path)


LISTED = ["file_name,label", "1.png,cat", "sub/2.png,ant"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", table(*LISTED)),
        ("labels.csv", table("\ufeffImage,Diagnosis,age", "1.png,cat,3", "2,ant,4")),
        ("labels.csv", table("image_id;dx", "1;cat", "2.png;ant")),
        (
            "metadata.jsonl",
            table(*(json.dumps({"file_name": n, "label": y}) for n, y in (("1.png", "cat"), ("sub/2.png", "ant")))),
        ),
    ],
)
def test_a_table_says_the_classes(name, text, tmp_path):
    put(tmp_path, {"1.png": PNG, "sub/2.png": PNG, name: text})
    assert found(tmp_path) == (["ant", "cat"], {"1.png": "cat", "sub/2.png": "ant"})
    assert layout_of(tmp_path).notes == []


def test_columns_may_be_named_and_numbers_are_ordered_by_value(tmp_path):
    put(tmp_path, {f"{n}.png": PNG for n in (1, 2, 3)} | {"labels.csv": table("a,b,label", "1,10,x", "2,9,x", "3,10,x")})
    columns = Columns(file="a", label="b")
    assert found(tmp_path, columns) == (["9", "10"], {"1.png": "10", "2.png": "9", "3.png": "10"})


def test_each_part_may_have_its_own_table(tmp_path):
    put(tmp_path, {f"{part}/{name}": PNG for part in ("train", "test") for name in ("1.png", "sub/2.png")})
    put(tmp_path, {f"{part}/metadata.csv": table(*LISTED) for part in ("train", "test")})
    layout = layout_of(tmp_path)
    assert layout.test is not None
    assert (layout.private.labels.tolist(), layout.test.labels.tolist()) == ([1, 0], [1, 0])


def test_a_number_0_is_a_label(tmp_path):
    put(tmp_path, {"1.png": PNG, "metadata.jsonl": '{"file_name": "1.png", "label": 0}'})
    assert found(tmp_path) == (["0"], {"1.png": "0"})


def test_names_in_a_table_may_have_folders_that_are_not_there_and_never_another_one(tmp_path):
    put(tmp_path, {"1.png": PNG, "labels.csv": table("file,label", "/scans/2019/1.png,x")})
    assert found(tmp_path)[1] == {"1.png": "x"}
    put(tmp_path / "other", {"p1/1.png": PNG, "labels.csv": table("file,label", "p9/1.png,x")})
    with rejects(None, ANY, "p9/1.png is in labels.csv"):
        list_images(tmp_path / "other")


@pytest.mark.parametrize("key", ["label", "file", "user"])
def test_a_column_without_a_table_is_refused(key, tmp_path):
    put(tmp_path, {**dict.fromkeys(TWO, PNG), "annotations.csv": table("file,label", "1.png,x")})
    with rejects(f"dataset.{key}_column", "mine", "has none of metadata.csv"):
        list_images(tmp_path, Columns(**{key: "mine"}))


BAD_TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no column of classes": (table("file_name,age", "1.png,3"), ("file_name, age", "dataset.label_column")),
    "no column of files": (table("x,label", "1.png,a"), ("dataset.file_column",)),
    "a file that is not there": (table(*LISTED, "3.png,cat"), ("3.png is in metadata.csv",)),
    "an image without a row": (table(*LISTED[:2]), ("sub/2.png has no row",)),
    "two rows for one image": (table(*LISTED, "2.png,cat"), ("sub/2.png has two rows",)),
    "an empty label": (table(*LISTED[:2], "sub/2.png,"), ("line 3", "column label")),
    "a value too many": (table(*LISTED[:2], "sub/2.png,mass, left"), ("line 3", "more values")),
    "an open quote": ('file_name,label\n1.png,"cat\n', ("no readable table",)),
    "nothing": ("", ("dataset.file_column",)),
    "no text": ("\x00", ("metadata.csv",)),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_table_is_told_with_what_is_wrong(kind, tmp_path):
    text, words = BAD_TABLES[kind]
    put(tmp_path, {"1.png": PNG, "sub/2.png": PNG, "metadata.csv": text})
    with rejects(None, ANY, *words):
        list_images(tmp_path)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    put(tmp_path, {"1.png": PNG, "labels.csv": table("file,label", "1.png,a")})
    with rejects("dataset.label_column", "kind", "file, label"):
        list_images(tmp_path, Columns(label="kind"))


def test_a_name_that_two_images_have_needs_its_folder(tmp_path):
    put(tmp_path, {"a/1.png": PNG, "b/1.png": PNG, "labels.csv": table("file,label", "1.png,x", "b/1.png,y")})
    with rejects(None, ANY, "names 2 images"):
        list_images(tmp_path)


# npz

ARRAYS = np.stack([picture(channels=1) for _ in range(4)])


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


NPZ: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]] = {
    "MedMNIST": lambda x, y: (
        {f"{part}_images": x for part in ("train", "val", "test")}
        | {f"{part}_labels": y[:, None] for part in ("train", "val", "test")}
    ),
    "Keras": lambda x, y: {"x_train": x, "y_train": y, "x_test": x[:3], "y_test": y[:3]},
}


@pytest.mark.parametrize("type", [np.uint8, np.int64])
@pytest.mark.parametrize("kind", NPZ)
def test_arrays_of_others_are_split_as_they_are(kind, type, tmp_path):
    place = saved(tmp_path / "x.npz", **NPZ[kind](ARRAYS, np.array([0, 1, 2, 1], type)))
    dataset = folder(place)
    dataset.check()
    dataset.prepare()
    assert (dataset.shape, dataset.classes, dataset.num_private) == ((8, 8, 1), ["0", "1", "2"], 4)
    np.testing.assert_array_equal(dataset.private().images[..., 0], ARRAYS)
    assert dataset.test().num_classes == 3


@pytest.mark.parametrize("kind", NPZ)
def test_arrays_of_others_that_do_not_fit_are_named(kind, tmp_path):
    place = saved(tmp_path / "x.npz", **NPZ[kind](ARRAYS, np.array([0.5, 1, 2, 1])))
    with rejects(None, ANY, "labels are float64"):
        list_images(place)


# Parquet

pyarrow = pytest.importorskip("pyarrow")
tables = pytest.importorskip("pyarrow.parquet")


def parquet(path: Path, labels: list, names: list[str] | None = None, image: str = "image") -> Path:
    """As `datasets` writes it."""
    images = [{"bytes": png(picture()), "path": None} for _ in labels]
    made = pyarrow.table({image: images, "label": labels})
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_table(made, path, row_group_size=3)
    return path


def test_parquet_is_read_as_datasets_writes_it(tmp_path):
    for shard in range(2):
        parquet(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", [0, 1, 1, 0, 1, 0, 1], ["ant", "cat"])
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 1], ["ant", "cat"])
    (tmp_path / "README.md").write_text("x")
    dataset = folder(tmp_path)
    dataset.check()
    dataset.prepare()
    assert (dataset.classes, dataset.num_private, dataset.num_test) == (["ant", "cat"], 14, 2)
    private = dataset.private()
    assert private.labels.tolist() == [0, 1, 1, 0, 1, 0, 1] * 2
    table = tables.read_table(tmp_path / "data" / "train-00001-of-00002.parquet")
    expected = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table.column("image").to_pylist()]
    np.testing.assert_array_equal(private.images[7:], expected)


def test_shards_of_one_name_in_two_folders_are_kept_apart(tmp_path):
    """As the hub converts datasets: CONFIG/train/0000.parquet."""
    for config, labels in (("en", ["a", "b"]), ("fr", ["b", "a"])):
        parquet(tmp_path / config / "train" / "0000.parquet", labels)
    listing = list_images(tmp_path)
    pixels = decode(listing, (8, 8, 3)).samples.images
    for part, config in ((pixels[:2], "en"), (pixels[2:], "fr")):
        rows = tables.read_table(tmp_path / config / "train" / "0000.parquet").column("image").to_pylist()
        np.testing.assert_array_equal(part, [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows])


@pytest.mark.parametrize("name", ["test_0", "cifar-test-0", "test-00000-of-00001"])
def test_parts_of_parquet_are_told_by_any_word_of_their_names(name, tmp_path):
    parquet(tmp_path / "train_0.parquet", ["a", "b"])
    parquet(tmp_path / f"{name}.parquet", ["a", "b"])
    layout = layout_of(tmp_path)
    assert layout.test is not None
    assert len(list_images(tmp_path / f"{name}.parquet")) == 2


@pytest.mark.parametrize("user", [None, float("nan"), " "])
def test_a_row_of_parquet_without_a_user_is_refused(user, tmp_path):
    images = [{"bytes": PNG, "path": None}] * 2
    users = ["x", user] if isinstance(user, str | None) else [1.0, user]
    tables.write_table(pyarrow.table({"image": images, "label": [0, 1], "who": users}), tmp_path / "x.parquet")
    with rejects(None, ANY, "no who in row 1"):
        list_images(tmp_path / "x.parquet", Columns(user="who"))


@pytest.mark.parametrize("ending", ["parquet", "tar"])
def test_shards_beside_images_are_refused(ending, tmp_path):
    put(tmp_path, {**dict.fromkeys(TWO, PNG), f"old.{ending}": "x"})
    with rejects(None, ANY, f"old.{ending} beside images"):
        list_images(tmp_path)


def test_parquet_without_class_names_has_its_labels_as_names(tmp_path):
    listing = list_images(parquet(tmp_path / "x.parquet", ["dog", "cat", "dog"], image="img"))
    assert (listing.classes, listing.labels.tolist()) == (["cat", "dog"], [1, 0, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"PAR1 not"), ("no readable Parquet",)),
        (lambda path: parquet(path, [0, 5], ["ant", "cat"]), ("label 5 in row 1",)),
        (lambda path: parquet(path, [0, None]), ("no label in row 1",)),
        (lambda path: tables.write_table(pyarrow.table({"label": [1]}), path), ("no column of images",)),
    ],
)
def test_bad_parquet_is_told_with_what_is_wrong(make, words, tmp_path):
    make(tmp_path / "x.parquet")
    with rejects(None, ANY, *words):
        list_images(tmp_path / "x.parquet")


def test_parquet_without_a_test_part_needs_a_test_path(tmp_path):
    dataset = folder(parquet(tmp_path / "x.parquet", [0, 1]))
    with rejects("dataset.test_path"):
        dataset.check()


# WebDataset


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_shards_of_webdataset_are_read(tmp_path):
    for number in range(2):
        files = {f"{k:04d}.{end}": content for k in range(3) for end, content in (("jpg", PNG), ("cls", str(k % 2).encode()))}
        shard(tmp_path / f"shard-{number}.tar", files)
    listing = list_images(tmp_path)
    assert (len(listing), listing.classes, listing.labels.tolist()) == (6, ["0", "1"], [0, 1, 0] * 2)
    assert len(decode(listing, (8, 8, 3)).samples) == 6


def test_shards_for_tests_are_no_private_ones(tmp_path):
    for part in ("train-000", "train-001", "test-000"):
        shard(
            tmp_path / f"{part}.tar", {f"{k}.{end}": c for k in range(2) for end, c in (("png", PNG), ("cls", str(k).encode()))}
        )
    layout = layout_of(tmp_path)
    assert layout.test is not None
    assert (len(layout.private), len(layout.test)) == (4, 2)


def test_tables_and_class_folders_have_no_labels_of_webdataset(tmp_path):
    put(
        tmp_path,
        {name: content for kind in TWO for name, content in ((kind, PNG), (kind.replace("png", "json"), '{"label": "x"}'))},
    )
    assert found(tmp_path) == (["ant", "cat"], TWO)


def test_a_cls_is_the_label_though_a_json_lies_beside_it(tmp_path):
    files = {"1.png": PNG, "1.cls": b"0", "1.json": b'{"label": "x"}'}
    assert found(shard(tmp_path / "x.tar", files))[1] == {"1.png": "0"}


def test_labels_of_webdataset_may_be_in_json(tmp_path):
    files = {"a/0.png": PNG, "a/0.json": b'{"label": "x"}', "a/1.png": PNG, "a/1.json": b'{"label": "y"}'}
    assert found(shard(tmp_path / "x.tar", files)) == (["x", "y"], {"a/0.png": "x", "a/1.png": "y"})


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"1.png": PNG, "2.png": PNG, "2.cls": b"0"}, ("1.png has no .cls",)),
        ({"1.png": PNG, "1.cls": b"cat"}, ("1.cls holds no label",)),
        ({"1.png": PNG, "1.cls": b"1"}, ("class 0 has no image",)),
    ],
)
def test_bad_shards_are_told_with_what_is_wrong(files, words, tmp_path):
    with rejects(None, ANY, *words):
        list_images(shard(tmp_path / "x.tar", files))


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.png"), io.BytesIO(b""))
    with rejects(None, ANY, "compressed"):
        list_images(tmp_path / "x.tar")


# Modes, bits and squares


def of_mode(mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, "JPEG" if mode == "CMYK" else "TIFF")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr"])
def test_other_colour_spaces_are_converted_with_a_note(mode, tmp_path):
    put(tmp_path, {"a/1.tif": of_mode(mode), "a/2.png": PNG})
    dataset = folder(tmp_path, test_fraction=0)
    dataset.prepare()
    with Image.open(tmp_path / "a" / "1.tif") as image:
        np.testing.assert_array_equal(dataset.private().images[0], np.asarray(image.convert("RGB")))
    assert dataset.notes()[-1] == f"private images of other colour spaces are converted by Pillow: 1 {mode}"


DEEP = np.array([[0, 1000], [2000, 4000]], np.uint16)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_mapped_by_a_window(format, tmp_path):
    put(tmp_path, {f"1.{format.lower()}": png(DEEP, format)})
    listing = list_images(tmp_path)
    pixels = decode(listing, (2, 2, 1), reading=Reading(window=(1000, 3000))).samples.images
    assert pixels[0, :, :, 0].tolist() == [[0, 0], [128, 255]]
    with rejects(None, ANY, "dataset.window=[low,high]"):
        decode(listing, (2, 2, 1))


@pytest.mark.parametrize("window", [[1.0], [2.0, 1.0], [0.0, float("nan")]])
def test_a_window_that_is_none_is_refused(window, tmp_path):
    put(tmp_path, {"1.png": PNG})
    with rejects("dataset.window"):
        folder(tmp_path, window=window).check()


def dicom(values: np.ndarray, **tags) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, generate_uid()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    made = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    made.Rows, made.Columns = values.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    for name, value in tags.items():
        setattr(made, name, value)
    made.PixelData = values.astype(np.uint16).tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("name", ["1.dcm", "IM0001"])
def test_dicom_is_mapped_by_slope_intercept_and_window(name, tmp_path):
    put(tmp_path, {name: dicom(DEEP, RescaleSlope=2, RescaleIntercept=-1000)})
    dataset = folder(tmp_path, image_size=2, image_channels=1, window=[0.0, 4000.0], test_fraction=0)
    assert dataset.private().images[0, :, :, 0].tolist() == [[0, 64], [191, 255]]
    assert folder(put(tmp_path / "more", {"1.dcm": b""})).shape[2] == 1


def test_small_values_of_monochrome1_are_white(tmp_path):
    put(tmp_path, {"1.dcm": dicom(DEEP, PhotometricInterpretation="MONOCHROME1")})
    pixels = decode(list_images(tmp_path), (2, 2, 1), reading=Reading(window=(0, 4000))).samples.images
    assert pixels[0, :, :, 0].tolist() == [[255, 191], [127, 0]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: dicom(np.stack([DEEP, DEEP]), NumberOfFrames=2), "2 frames"),
        (lambda: dicom(DEEP, PhotometricInterpretation="RGB", SamplesPerPixel=3), "kind RGB"),
        (lambda: dicom(DEEP)[:200], "1.dcm is no readable image"),
    ],
)
def test_dicom_that_is_not_one_frame_of_grey_is_refused(content, words, tmp_path):
    put(tmp_path, {"1.dcm": content()})
    with rejects(None, ANY, words):
        decode(list_images(tmp_path), (2, 2, 1), reading=Reading(window=(0, 4000)))


def test_a_picture_is_cropped_or_padded_to_a_square(tmp_path):
    wide = np.full((4, 8, 3), 200, np.uint8)
    wide[:, :2] = 100
    put(tmp_path, {"1.png": png(wide)})
    listing = list_images(tmp_path)
    cropped = decode(listing, (4, 4, 3), reading=Reading(fit=Fit.crop)).samples.images[0]
    padded = decode(listing, (8, 8, 3), reading=Reading(fit=Fit.pad)).samples.images[0]
    assert (cropped == 200).all()
    np.testing.assert_array_equal(padded[2:6], wide)
    assert (padded[:2] == 0).all()
    assert (padded[6:] == 0).all()


@pytest.mark.usefixtures("here")
def test_three_keys_make_a_release_of_ones_own_images(tmp_path):
    put(tmp_path / "mine", {f"{kind}/patient{i % 3}/{i}.png": png(picture(12)) for kind in ("ant", "cat") for i in range(40)})
    put(tmp_path / "mine", {"notes.txt": "x"})
    result = call("dataset=folder", f"dataset.path={tmp_path}/mine", "dataset.image_size=8")
    assert result.code == 0, result.err
    assert "class folders with folders in them" in result.err
    assert (output_of(Path("run")) / "samples.npz").exists()
    certificate = json.loads((output_of(Path("run")) / "privacy.json").read_text())
    assert "notes" not in json.dumps(certificate)


@pytest.mark.usefixtures("here")
def test_a_network_for_ones_own_images_has_their_size_classes_and_channels(tmp_path):
    kinds = ("ant", "bee", "cat")
    put(tmp_path / "mine", {f"{kind}/{i}.png": png(picture(40)) for kind in kinds for i in range(40)})
    place = ["dataset=folder", f"dataset.path={tmp_path}/mine", "dataset.image_size=40"]
    config = compose([*place, "method=dp_diffusion", "privacy.epsilon=6"])
    config.check()
    model, method = config.model, config.method
    assert isinstance(model, UNet)
    assert isinstance(method, DPDiffusion)
    assert (model.image_shape, model.labels, model.patch) == ((40, 40, 3), 3, 4)
    assert (method.batch_size, method.warm_up.epsilon) == (-(-config.dataset.num_private // 5), 3.0)
    grey = compose([*place, "dataset.image_channels=1", "dataset.keep_classes=[ant,cat]", "method=dp_diffusion"])
    assert isinstance(grey.model, UNet)
    assert (grey.model.image_shape, grey.model.labels) == ((40, 40, 1), 2)
    for method_without in ("pe", "dp_loda"):
        with rejects("model.pretrained", None, "scripts.pretrain_public"):
            compose([*place, f"method={method_without}", "model=own_unet"]).check()
    with rejects("dataset.path", "nowhere"):
        compose(["dataset=folder", "dataset.path=nowhere", "dataset.image_size=40", "method=dp_diffusion"]).check()
