"""The user's own images: every layout, every bad file, and that adding one image moves no other."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset import ClassCounts
from data.datasets.folder import Folder
from data.decoding import MAX_PIXELS, OnBad, decode
from data.layouts import list_images
from data.samples import SampleSet
from errors import InputError
from tests.command import call, output_of
from tests.rejects import assert_refused, rejects

RNG = np.random.default_rng(0)


def png(pixels: np.ndarray, format: str = "PNG", mode: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, format)
    return file.getvalue()


def picture(side: int = 8, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (side, side, channels) if channels == 3 else (side, side)).astype(np.uint8)


def class_folders(root: Path, count: int = 20, side: int = 8) -> Path:
    for i in range(count):
        folder = root / ("cat" if i % 2 else "ant")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.png").write_bytes(png(picture(side)))
    return root


def zipped(root: Path, files: dict[str, bytes]) -> Path:
    path = root / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def folder(path: Path, **changes) -> Folder:
    settings = dict(path=str(path), image_size=8, class_counts=ClassCounts.uniform)
    return Folder(**{**settings, **changes})


def with_json(labels, names=("00000/a.png", "00000/b.png", "00001/c.png")) -> dict[str, bytes]:
    return {**{name: png(picture()) for name in names}, "dataset.json": json.dumps({"labels": labels}).encode()}


LABELS = [["00000/a.png", 0], ["00000/b.png", 1], ["00001/c.png", 0]]


def test_class_folders_are_split_by_name_and_complete(tmp_path):
    dataset = folder(class_folders(tmp_path, 60))
    dataset.check()
    dataset.prepare()
    private, test = dataset.private(), dataset.test()
    assert dataset.classes == ["ant", "cat"]
    assert (len(private), len(private) + len(test)) == (dataset.num_private, 60)
    assert 3 <= len(test) <= 24
    assert private.images.shape[1:] == dataset.shape == (8, 8, 3)
    everything = {np.asarray(Image.open(path)).tobytes(): path.parent.name for path in tmp_path.rglob("*.png")}
    for part in (private, test):
        assert all(
            everything.pop(image.tobytes()) == dataset.classes[label]
            for image, label in zip(part.images, part.labels, strict=True)
        )
    assert not everything


def test_one_more_image_moves_no_other(tmp_path):
    class_folders(tmp_path, 40)
    before = folder(tmp_path)
    sets = {image.tobytes() for image in before.test().images}
    (tmp_path / "ant" / "new.png").write_bytes(png(picture()))
    after = folder(tmp_path)
    assert sets <= {image.tobytes() for image in after.test().images}
    assert len(after.test()) + len(after.private()) == 41


def members(dataset: Folder) -> set[str]:
    """Names of the private images."""
    listing = dataset._lists[0]
    return {listing.names[row] for row in dataset._rows}


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.7])
def test_one_file_less_moves_no_other_of_a_fraction(tmp_path, fraction, stratified):
    names = [f"{kind}/{i:03d}.png" for kind in ("ant", "cat") for i in range(150)]
    every = {name: png(np.zeros((1, 1, 3), np.uint8)) for name in names}
    for split in ({}, {"test_path": str(zipped(tmp_path, every))}):
        settings = dict(fraction=fraction, stratified=stratified, **split)
        whole = folder(zipped(tmp_path, every), **settings)
        before = members(whole)
        assert len(before) == whole.num_private
        for gone in (names[0], names[137], names[299], next(iter(before))):
            some = tmp_path / "some"
            some.mkdir(exist_ok=True)
            rest = folder(zipped(some, {name: every[name] for name in names if name != gone}), **settings)
            assert members(rest) == before - {gone}
            assert rest.num_private == len(before) - (gone in before)


def test_a_fraction_keeps_its_share_of_every_class_inside_every_larger_one_whatever_is_held_out(tmp_path):
    names = [f"{kind}/{i:04d}.png" for kind in ("ant", "cat") for i in range(1500)]
    place = zipped(tmp_path, dict.fromkeys(names, b""))
    all_private = folder(place, test_path=str(place))
    sets = []
    for fraction in (0.05, 0.3, 0.6, 1.0):
        one = folder(place, test_path=str(place), fraction=fraction)
        sets.append(members(one))
        assert one.num_private == len(sets[-1])
        for kind in ("ant", "cat"):
            count = sum(name.startswith(kind) for name in sets[-1])
            assert abs(count - 1500 * fraction) <= 5 * np.sqrt(1500 * fraction * (1 - fraction))
        held_out = folder(place, fraction=fraction)  # a fifth of all is held out, of any fraction
        assert members(held_out) == sets[-1] & set(held_out.lists()[0].names)
        assert abs(held_out.num_private / one.num_private - 0.8) < 0.15
        assert members(folder(place, test_path=str(place), fraction=fraction, keep_classes=["cat"])) == {
            name for name in sets[-1] if name.startswith("cat")
        }
    assert all(small < large for small, large in pairwise(sets))
    assert all_private.num_private == 3000


def test_a_certificate_says_which_files_it_is_about(tmp_path):
    place, test = class_folders(tmp_path / "mine", 40), str(class_folders(tmp_path / "test", 4))
    half, all_of_them = folder(place, test_path=test, fraction=0.5), folder(place, test_path=test)
    count = half.num_private
    by_name = "fraction 0.5, each by the hash of its file's name alone, so that one file more or less moves no other"
    sentence = f"{count} of the 40 training images of folder: {by_name}"
    assert half.guarantee() == {"private_images": count, "guarantee_is_about": sentence}
    assert all_of_them.guarantee() == {"private_images": 40, "guarantee_is_about": "all 40 training images of folder"}
    assert folder(place, keep_classes=["cat"]).chosen.endswith(
        "training images of folder, classes cat; test images are another 0.2 of the files, by the hash of their names"
    )
    assert half.facts()["private_is"] == half.chosen


def test_a_fraction_that_chooses_no_file_or_of_images_without_names_is_refused(tmp_path):
    place = class_folders(tmp_path / "mine")
    with rejects("dataset.fraction", 1e-9):
        _ = folder(place, fraction=1e-9).num_private
    samples = SampleSet(np.stack([picture() for _ in range(6)]), np.arange(6) % 2, 2)
    samples.save(tmp_path / "samples.npz")
    test = shutil.copy(tmp_path / "samples.npz", tmp_path / "test.npz")
    with rejects("dataset.fraction", 0.5):
        folder(tmp_path / "samples.npz", test_path=str(test), fraction=0.5).check()


def test_a_test_folder_of_its_own_leaves_all_images_private(tmp_path):
    dataset = folder(class_folders(tmp_path / "a", 10), test_path=str(class_folders(tmp_path / "b", 4)))
    dataset.check()
    assert (len(dataset.private()), len(dataset.test())) == (10, 4)
    (tmp_path / "b" / "dog").mkdir()
    (tmp_path / "b" / "dog" / "x.png").write_bytes(png(picture()))
    with rejects("dataset.test_path", tmp_path / "c", "ant, cat"):
        folder(tmp_path / "a", test_path=str(shutil.copytree(tmp_path / "b", tmp_path / "c"))).check()


def test_edm_archives_and_folders_are_read_alike(tmp_path):
    files = with_json(LABELS)
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    one, two = (list_images(path) for path in (zipped(tmp_path, files), tmp_path / "folder"))
    assert one.classes == two.classes == ["0", "1"]
    assert one.labels.tolist() == two.labels.tolist() == [0, 1, 0]
    first, second = (decode(listing, (8, 8, 3)).samples for listing in (one, two))
    assert np.array_equal(first.images, second.images)


def test_a_release_is_a_dataset_with_a_test_set_of_its_own(tmp_path):
    samples = SampleSet(np.stack([picture() for _ in range(30)]), np.arange(30) % 3, 3)
    samples.save(tmp_path / "samples.npz")
    samples[:6].save(tmp_path / "test.npz")
    with rejects("dataset.test_path", None):
        folder(tmp_path / "samples.npz").check()
    dataset = folder(tmp_path / "samples.npz", test_path=str(tmp_path / "test.npz"))
    dataset.check()
    dataset.prepare()
    assert np.array_equal(dataset.private().images, samples.images)
    assert len(dataset.test()) == 6


def test_an_unreadable_image_leaves_the_others_of_a_fraction_as_they_are(tmp_path):
    class_folders(tmp_path / "mine", 60)
    test = str(class_folders(tmp_path / "test", 4))
    half = folder(tmp_path / "mine", test_path=test, fraction=0.5, on_bad=OnBad.skip)
    before = {image.tobytes() for image in half.private().images}
    (tmp_path / "mine" / "ant" / "000.png").write_bytes(b"")
    after = {
        image.tobytes() for image in folder(tmp_path / "mine", test_path=test, fraction=0.5, on_bad=OnBad.skip).private().images
    }
    assert after <= before
    assert len(before) - len(after) <= 1


def test_a_photograph_stands_upright(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.fromarray(np.repeat(np.arange(0, 256, 32, dtype=np.uint8)[:, None], 8, 1))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a" / "x.png", exif=exif)
    upright = decode(list_images(tmp_path), (8, 8, 1)).samples.images[0, :, 0, 0]
    assert (np.diff(upright.astype(int)) < 0).all()


def test_every_image_gets_the_shape_of_the_model(tmp_path):
    class_folders(tmp_path, 20)
    (tmp_path / "ant" / "wide.jpg").write_bytes(png(np.full((20, 40, 3), 9, np.uint8), "JPEG"))
    (tmp_path / "ant" / "grey.png").write_bytes(png(np.full((3, 3), 200, np.uint8)))
    palette = Image.new("P", (5, 5), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "cat" / "palette.png")
    listing = list_images(tmp_path)
    decoded = decode(listing, (8, 8, 3))
    of = dict(zip(listing.names, decoded.samples.images, strict=True))
    assert not decoded.bad
    assert np.abs(of["ant/wide.jpg"].astype(int) - 9).max() <= 2
    assert (of["ant/grey.png"] == 200).all()
    assert (of["cat/palette.png"] == [255, 0, 0]).all()
    assert decode(listing, (4, 4, 1)).samples.images.shape == (23, 4, 4, 1)


def test_a_central_square_is_kept(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 255
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(png(pixels))
    assert (decode(list_images(tmp_path), (8, 8, 3)).samples.images == 255).all()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_bad_exif() -> bytes:
    """Upside down, by a maker whose name is a fraction."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 3) + struct.pack("<HHII", 0x010F, 5, 1, 38)
    exif = b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4) + struct.pack("<II", 1, 2)
    whole = png(picture())
    return whole[:-12] + chunk(b"eXIf", exif) + whole[-12:]


def of_16_bits() -> bytes:
    rows = b"".join(b"\0" + RNG.bytes(8 * 6) for _ in range(8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def see_through(mode: str) -> bytes:
    image, file = Image.fromarray(picture()).convert(mode), io.BytesIO()
    image.save(file, "PNG", transparency=image.getpixel((0, 0)))
    return file.getvalue()


BAD = {
    "zero bytes": b"",
    "truncated": png(picture(64))[:200],
    "no image": b"hello",
    "transparency": png(RNG.integers(0, 256, (8, 8, 4)).astype(np.uint8)),
    "16 bits": png(RNG.integers(0, 60000, (8, 8)).astype(np.uint16)),
    "16 bits of colour": of_16_bits(),
    "a transparent palette entry": see_through("P"),
    "a transparent grey": see_through("L"),
    "a transparent colour": see_through("RGB"),
    "bad EXIF": with_bad_exif(),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_named_or_skipped_and_counted(kind, tmp_path):
    class_folders(tmp_path, 30)
    (tmp_path / "ant" / "000.png").write_bytes(BAD[kind])
    dataset = folder(tmp_path, test_path=str(class_folders(tmp_path.parent / f"{tmp_path.name}-test", 4)))
    dataset.check()
    with pytest.raises(InputError, match=r"ant/000\.png is no readable image"):
        dataset.prepare()
    skipping = folder(tmp_path, test_path=dataset.test_path, on_bad=OnBad.skip)
    skipping.prepare()
    assert len(skipping.private()) == skipping.num_private - 1 == 29
    assert "1 private images are left out" in skipping.notes()[-1]


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("data.decoding.MAX_PIXELS", 100)
    class_folders(tmp_path, 2, side=11)
    with pytest.raises(InputError, match="11×11 pixels"):
        decode(list_images(tmp_path), (8, 8, 3))
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS  # type: ignore[operator]


def in_root(root: Path) -> Path:
    class_folders(root)
    (root / "loose.png").write_bytes(png(picture()))
    return root


def empty_class(root: Path) -> Path:
    class_folders(root)
    (root / "dog").mkdir()
    return root


def twice(root: Path) -> Path:
    path = zipped(root, {"a/x.png": png(picture())})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/x.png", png(picture()))
    return path


def empty_class_in_zip(root: Path) -> Path:
    return zipped(root, {"a/x.png": png(picture()), "b/": b""})


WRONG = {
    "in-no-class": (in_root, "loose.png lies beside the class folders"),
    "empty-class": (empty_class, "class dog has no image"),
    "empty-class-in-zip": (empty_class_in_zip, "class b has no image"),
    "empty": (lambda root: root, "holds no images"),
    "climbs": (lambda root: zipped(root, {"../x.png": png(picture())}), "outside the archive"),
    "absolute": (lambda root: zipped(root, {"/etc/x.png": png(picture())}), "outside the archive"),
    "twice": (twice, "holds a/x.png twice"),
    "no-name": (lambda root: zipped(root, {".": b""}), "holds '.', which is no name of a file"),
    "twice-in-other-words": (lambda root: zipped(root, {"a/x.png": b"", "a/./x.png": b""}), "holds a/x.png twice"),
    "no-label": (lambda root: zipped(root, with_json(LABELS[:2])), "00001/c.png has no label"),
    "two-labels": (lambda root: zipped(root, with_json([*LABELS, LABELS[0]])), "00000/a.png has two labels"),
    "negative": (lambda root: zipped(root, with_json([*LABELS[:2], ["00001/c.png", -1]])), "no class number: 00001/c.png: -1"),
    "float": (lambda root: zipped(root, with_json([*LABELS[:2], ["00001/c.png", 0.5]])), "no class number"),
    "gap": (lambda root: zipped(root, with_json([*LABELS[:2], ["00001/c.png", 3]])), "class 2 has no image"),
    "large": (lambda root: zipped(root, with_json([*LABELS[:2], ["00001/c.png", 2**70]])), r"class 2 has .* \(00001/c.png\)"),
    "nested": (lambda root: zipped(root, {"dataset.json": b"[" * 200_000}), "dataset.json has no list of names and labels"),
    "null-labels": (lambda root: zipped(root, with_json(None)), "has no labels"),
    "lost-file": (lambda root: zipped(root, with_json([*LABELS, ["d.png", 0]])), "d.png is in dataset.json, and not among"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_layout_is_named(make, message, tmp_path):
    with pytest.raises(InputError, match=message):
        list_images(make(tmp_path))


@pytest.mark.parametrize("harm", ["torn", "random"])
def test_a_wrong_zip_is_named(harm, tmp_path):
    path = zipped(tmp_path, with_json(LABELS))
    content = bytearray(path.read_bytes())
    if harm == "torn":
        content[10:200] = b"\xff" * 190
    else:
        content[-60:-30] = b"\xff" * 30
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"images\.zip"):
        decode(list_images(path), (8, 8, 3))


@pytest.mark.parametrize("harm", ["torn", "no labels", "text"])
def test_a_wrong_npz_is_named(harm, tmp_path):
    path = tmp_path / "x.npz"
    if harm == "torn":
        SampleSet(np.stack([picture()]), np.zeros(1, np.int64), 1).save(path)
        path.write_bytes(path.read_bytes()[:-60])
    elif harm == "text":
        path.write_text("hello")
    else:
        np.savez(path, images=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"x\.npz"):
        list_images(path)


def test_a_plan_opens_no_image(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    dataset = folder(class_folders(tmp_path, 60))
    dataset.check()
    assert dataset.facts()["classes"] == ["ant", "cat"]


@pytest.mark.usefixtures("here")
def test_from_a_folder_of_images_to_a_release(tmp_path):
    class_folders(tmp_path / "mine", 40)
    settings = ["dataset=folder", f"dataset.path={tmp_path}/mine", "dataset.image_size=8", "dataset.image_channels=1"]
    settings += [
        "+experiment=dp_diffusion/smoke",
        "method.steps=1",
        "method.num_samples=4",
        "model.respacing=4",
        "eval=none",
        "device=cpu",
    ]
    result = call(*settings)
    assert result.code == 0, result.err
    assert SampleSet.load(output_of(Path("run")) / "samples.npz").images.shape == (4, 8, 8, 1)
    unfinished = call(*settings, "hydra.run.dir=third", "method.max_minutes=1e-9", "seed=3")
    assert unfinished.code == 0
    (Path("third") / "internal" / "metrics.json").unlink()
    moved = next((tmp_path / "mine" / "cat").iterdir())
    moved.write_bytes(png(picture()))
    changed = call(*settings, "hydra.run.dir=third", "method.max_minutes=1e-9", "seed=3")
    assert_refused(changed, f"hydra.run.dir={Path.cwd()}/third", "other private images")
    (tmp_path / "mine" / "ant" / "bad.png").write_bytes(b"")
    result = call(*settings, "hydra.run.dir=second")
    assert result.code == 2
    assert "ant/bad.png" in result.err
    assert result.err.count("\n") == 1
    assert not Path("second").exists()


ONE_CLASS_LOST = {
    "dp_diffusion": ["+experiment=dp_diffusion/smoke", "method.steps=1", "model.respacing=4"],
    "pe": ["+experiment=smoke"],
    "real_data": ["method=real_data"],
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("counts", ["uniform", "public", "laplace"])
@pytest.mark.parametrize("method", ONE_CLASS_LOST)
def test_a_class_that_skipping_leaves_without_images_stops_no_run(tmp_path, method, counts):
    """Its last image decides neither whether there is a run nor which classes there are: the listing names them."""
    mine = class_folders(tmp_path / "mine", 40)
    for path in (mine / "cat").iterdir():
        path.write_bytes(b"")
    settings = ["dataset=folder", f"dataset.path={mine}", "dataset.image_size=8", "dataset.image_channels=1"]
    settings += [f"dataset.test_path={class_folders(tmp_path / 'test', 4)}", "dataset.on_bad=skip", "device=cpu", "eval=none"]
    settings += [f"dataset.class_counts={counts}", "privacy.class_counts_epsilon=1", *ONE_CLASS_LOST[method]]
    settings += ["eval.downstream.enabled=true", "eval.downstream.steps=2", "eval.downstream.batch_size=8"]
    if method != "real_data":
        settings += ["method.num_samples=8"]
    result = call(*settings)
    assert result.code == 0, result.err
    samples = SampleSet.load(output_of(Path("run")) / "samples.npz")
    assert samples.num_classes == 2
    if method != "real_data":
        about = json.loads((output_of(Path("run")) / "privacy.json").read_text())["guarantee_is_about"]
        assert "files that cannot be read are counted too" in about
    assert len(np.unique(samples.labels)) == (1 if method == "real_data" else 2)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "asks", [["eval.discriminator.enabled=true"], ["eval.downstream.enabled=true", "eval.downstream.pretrain_steps=1"]]
)
def test_a_bad_public_image_is_told_before_work_where_an_evaluator_asks_for_them(tmp_path, asks):
    class_folders(tmp_path / "mine", 40)
    (class_folders(tmp_path / "public", 4) / "ant" / "bad.png").write_bytes(b"")
    place = [f"dataset.path={tmp_path}/mine", f"dataset.public_path={tmp_path}/public"]
    settings = ["dataset=folder", *place, "dataset.image_size=8", "dataset.image_channels=1", "+experiment=dp_diffusion/smoke"]
    result = call(*settings, "eval=none", *asks, "device=cpu")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert [word in result.err for word in (f"{tmp_path}/public ", "ant/bad.png")] == [True, True]
    assert not Path("run").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "override",
    [
        "dataset.path=/nowhere",
        "dataset.image_size=0",
        "dataset.image_channels=2",
        "dataset.test_fraction=1.0",
        "dataset.public_path=/nowhere",
    ],
)
def test_wrong_settings_are_one_line(override, tmp_path):
    class_folders(tmp_path / "mine", 40)
    settings = ["dataset=folder", f"dataset.path={tmp_path}/mine", "dataset.image_size=8", "dataset.image_channels=1"]
    assert_refused(call(*settings, override), override)
