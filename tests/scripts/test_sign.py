"""A release is signed once it was approved, and an export of it; what does not hold is not signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from disk import sha256_of
from scripts import export, sign
from tests.keys import key_pair
from tests.rejects import rejects
from tests.scripts.test_verify import SPENDS, failures, make, other_image, status


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make(tmp_path, SPENDS, dataset="mine", method="pe")


def signed(folder: Path, key: str) -> None:
    sign.main([f"release={folder}", f"key={key}"])


def test_a_release_is_signed_after_it_was_approved_and_keeps_its_certificate(release, tmp_path, capsys):
    private, public = key_pair(tmp_path)
    before = (release / "privacy.json").read_bytes()
    signed(release, private)
    assert (release / "privacy.json").read_bytes() == before
    assert status(capsys, release, f"public_key={public}")[0] == 0
    with rejects("release", str(release), "privacy.json.sig"):
        signed(release, private)


def test_only_the_certificate_that_was_approved_is_signed(release, tmp_path, capsys):
    private, _ = key_pair(tmp_path)
    digest = sha256_of(release / "privacy.json")
    for wrong in ("0" * 64, digest[:7]):
        with rejects("sha256", wrong):
            sign.main([f"release={release}", f"key={private}", f"sha256={wrong}"])
    sign.main([f"release={release}", f"key={private}", f"sha256={digest[:16]}"])
    assert digest in capsys.readouterr().out


def test_an_export_holds_and_is_signed_like_a_release(release, tmp_path, capsys):
    private, public = key_pair(tmp_path)
    out = tmp_path / "out"
    export.main([f"release={release}", f"to={out}", "format=imagefolder"])
    code, told = status(capsys, out)
    assert (code, failures(told)) == (0, [])
    assert "an export" in told
    signed(out, private)
    assert status(capsys, out, f"public_key={public}")[0] == 0
    picture = next(out.rglob("*.png"))
    picture.write_bytes(picture.read_bytes() + b" ")
    assert failures(status(capsys, out, f"public_key={public}")[1]) == [f"files: {picture.relative_to(out)} was changed"]


def test_what_does_not_hold_is_neither_signed_nor_exported(release, tmp_path):
    private, _ = key_pair(tmp_path)
    other_image(release)
    with rejects("release", str(release), "samples.npz was changed"):
        signed(release, private)
    with rejects("release", str(release), "samples.npz was changed"):
        export.main([f"release={release}", f"to={tmp_path / 'out'}", "format=imagefolder"])


def test_samples_that_no_digest_was_compared_with_are_exported_and_not_signed(release, tmp_path, capsys):
    private, _ = key_pair(tmp_path)
    place = release / "privacy.json"
    document = json.loads(place.read_text())
    del document["files"]
    place.write_text(json.dumps(document))
    other_image(release)
    out = tmp_path / "out"
    export.main([f"release={release}", f"to={out}", "format=imagefolder"])
    assert status(capsys, out)[0] == 1
    for folder in (release, out):
        with rejects("release", str(folder), "names no files"):
            signed(folder, private)


def test_a_licence_is_named_by_an_export(release, tmp_path, capsys):
    out = tmp_path / "out"
    export.main([f"release={release}", f"to={out}", "format=imagefolder", "license=cc-by-4.0"])
    assert (out / "README.md").read_text().startswith("---\nlicense: cc-by-4.0\n")
    assert status(capsys, out)[0] == 0


@pytest.mark.parametrize("wrong", [{"files": []}, {"exported": "x"}])
def test_a_certificate_of_another_form_is_no_traceback(wrong, release, tmp_path, capsys):
    place = release / "privacy.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **wrong}))
    if "files" in wrong:
        with rejects("release", str(release)):
            export.main([f"release={release}", f"to={tmp_path / 'out'}", "format=imagefolder"])
        with rejects("release", str(release)):
            status(capsys, release)
    else:
        assert status(capsys, release)[0] == 0


def test_more_than_what_was_spent_is_not_signed(release, tmp_path):
    private, _ = key_pair(tmp_path)
    place = release / "privacy.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "epsilon": 0.1}))
    with rejects("release", str(release), "epsilon by pld"):
        signed(release, private)


def test_a_key_that_is_none_is_refused_and_leaves_no_signature(release):
    with rejects("key", "nowhere"):
        signed(release, "nowhere")
    assert not (release / "privacy.json.sig").exists()
