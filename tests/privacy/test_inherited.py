"""What was trained on private images is not public: what it spent is found beside it, and counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from privacy.inherited import Inherited, PublicInput, carry_certificate
from privacy.mechanisms import DiscreteGaussian, SampledGaussian, Spend
from tests.rejects import rejects

TRAINING = Spend("dp_sgd", SampledGaussian(0.5, 0.1), 7)
VOTES = Spend("base:cd34.pe.votes", DiscreteGaussian(2.0), 3)


def document(*spends: Spend, **more) -> dict:
    listed = [spend.to_dict() for spend in spends or [TRAINING]]
    return {"id": "ab12", "private": True, "epsilon": 3.0, "delta": 1e-5, "dataset": "digits", "mechanisms": listed, **more}


def model(folder: Path, certificate: dict) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights.safetensors").write_bytes(b"weights")
    carry_certificate(certificate, folder)
    return folder


def inherited(*paths: Path, other_data: bool = False, dataset: str = "") -> Inherited:
    keys = ("model.pretrained", "model.features", "dataset.public_path")
    return Inherited.of([PublicInput(key, path) for key, path in zip(keys, paths, strict=False)], other_data, dataset)


@pytest.mark.parametrize("part", [".", "unet", "unet/weights.safetensors"])
def test_a_copy_of_any_part_of_a_model_carries_what_it_spent(tmp_path, part):
    source = model(tmp_path / "run" / "release" / "model", document()) / part
    copied = tmp_path / "elsewhere" / "copy"
    copied.parent.mkdir()
    if source.is_dir():
        shutil.copytree(source, copied)
        assert inherited(copied).spends == [Spend("base:ab12.dp_sgd", TRAINING.mechanism, 7)]
    assert inherited(source).spends == [Spend("base:ab12.dp_sgd", TRAINING.mechanism, 7)]


def test_a_release_from_before_models_carried_certificates_is_known_by_the_one_beside_it(tmp_path):
    release = tmp_path / "release"
    (release / "model" / "unet").mkdir(parents=True)
    old = {key: value for key, value in document().items() if key != "id"}
    (release / "privacy.json").write_text(json.dumps(old))
    (first,), (second,) = (inherited(release / "model" / part).spends for part in (".", "unet"))
    assert first == second
    assert (first.mechanism, first.count) == (TRAINING.mechanism, 7)


@pytest.mark.parametrize("how", ["copied", "linked"])
def test_a_part_in_another_folder_is_found_by_the_files_in_use(tmp_path, how):
    unet = model(tmp_path / "run" / "release" / "model", document()) / "unet"
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copytree(unet, mine / "unet") if how == "copied" else (mine / "unet").symlink_to(unet)
    one = PublicInput("model.pretrained", mine, [mine / "unet" / "weights.safetensors"])
    assert Inherited.of([one]).spends == [Spend("base:ab12.dp_sgd", TRAINING.mechanism, 7)]


def test_a_file_that_is_a_link_has_its_certificate_beside_the_link_or_where_it_leads(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "release").mkdir()
    (tmp_path / "store" / "blob").write_bytes(b"samples")
    (tmp_path / "release" / "samples.npz").symlink_to(tmp_path / "store" / "blob")
    carry_certificate(document(), tmp_path / "release")
    assert len(inherited(tmp_path / "release" / "samples.npz").spends) == 1


def test_a_link_to_what_is_not_for_release_is_refused(tmp_path):
    place = tmp_path / "run" / "internal" / "not_for_release" / "model" / "unet"
    place.mkdir(parents=True)
    (place / "weights.safetensors").touch()
    (tmp_path / "run" / "internal" / "noise.key").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "unet").symlink_to(place)
    one = PublicInput("model.pretrained", tmp_path / "mine", [tmp_path / "mine" / "unet" / "weights.safetensors"])
    with rejects("model.pretrained", tmp_path / "mine", "internal/"):
        Inherited.of([one])


def test_what_was_set_aside_is_kept_and_counts_where_it_was_spent_on_these_images(tmp_path):
    """A on digits; B on faces starts from A, whose images are other people's; C on digits starts from B."""
    a = model(tmp_path / "a", document())
    to_b = inherited(a, other_data=True, dataset="faces")
    assert (to_b.spends, [spend.purpose for spend in to_b.elsewhere]) == ([], ["base:ab12.dp_sgd"])
    b = model(tmp_path / "b", document(Spend("pe.votes", VOTES.mechanism), id="cd34", dataset="faces", **to_b.origins()))
    to_c = inherited(b, other_data=True, dataset="digits")
    assert [spend.purpose for spend in to_c.spends] == ["base:ab12.dp_sgd"]
    assert [spend.purpose for spend in to_c.elsewhere] == ["base:cd34.pe.votes"]
    assert any("faces" in assumption and "digits" in assumption for assumption in to_c.assumptions)
    without = inherited(b, dataset="digits")
    assert {spend.purpose for spend in without.spends} == {"base:ab12.dp_sgd", "base:cd34.pe.votes"}
    assert without.elsewhere == []


def test_what_carries_no_certificate_has_spent_nothing(tmp_path):
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    (tmp_path / "privacy.json").write_text("{}")  # too far up to be its own
    assert inherited(tmp_path / "a" / "b" / "c" / "d", tmp_path / "a" / "b" / "c" / "nowhere").spends == []


def test_a_release_that_two_settings_name_counts_once_and_what_it_inherited_keeps_its_name(tmp_path):
    one = model(tmp_path / "one", document(TRAINING, VOTES))
    two = shutil.copytree(one, tmp_path / "two")
    assert inherited(one, two).spends == [Spend("base:ab12.dp_sgd", TRAINING.mechanism, 7), VOTES]


def test_two_releases_with_the_same_mechanisms_count_twice(tmp_path):
    one, two = model(tmp_path / "one", document()), model(tmp_path / "two", document(id="ef56"))
    assert [spend.purpose for spend in inherited(one, two).spends] == ["base:ab12.dp_sgd", "base:ef56.dp_sgd"]


def test_certificates_that_contradict_each_other_are_refused(tmp_path):
    one, two = model(tmp_path / "one", document()), model(tmp_path / "two", document(Spend("dp_sgd", TRAINING.mechanism, 6)))
    with rejects("model.features", two, "dp_sgd"):
        inherited(one, two)


def test_images_of_other_people_cost_nothing_and_are_an_assumption(tmp_path):
    found = inherited(model(tmp_path / "mine", document()), other_data=True)
    assert found.spends == []
    (assumption,) = found.assumptions
    assert "model.pretrained (mine, spent epsilon=3 at delta=1e-05 on digits)" in assumption


def test_only_models_can_be_of_other_people(tmp_path):
    images = [PublicInput("dataset.public_path", model(tmp_path / "images", document()))]
    assert len(Inherited.of(images, other_data=True).spends) == 1


@pytest.mark.parametrize("other_data", [False, True])
def test_what_is_not_private_is_refused_whoever_is_in_it(tmp_path, other_data):
    place = model(tmp_path / "m", document(private=False, reason="privacy.noise_seed=1: anyone can compute the noise"))
    with rejects("model.pretrained", place, "noise_seed=1"):
        inherited(place, other_data=other_data)


@pytest.mark.parametrize("mark", ["ledger.jsonl", "noise.key"])
def test_what_lies_under_internal_of_a_run_is_refused(tmp_path, mark):
    place = tmp_path / "run" / "internal" / "not_for_release" / "model" / "unet"
    place.mkdir(parents=True)
    (tmp_path / "run" / "internal" / mark).touch()
    with rejects("model.pretrained", place, "internal/"):
        inherited(place)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"private": true, "epsilon": 1}',
        '{"private": true, "epsilon": 1, "delta": 1e-5, "mechanisms": [{"mechanism": "new"}]}',
    ],
)
def test_a_damaged_certificate_is_refused(tmp_path, text):
    place = model(tmp_path / "m", document())
    (place / "privacy.json").write_text(text)
    with rejects("model.pretrained", place, "privacy.json"):
        inherited(place)


def test_what_is_made_from_inputs_alone_has_spent_what_they_have(tmp_path):
    found = inherited(model(tmp_path / "one", document()), model(tmp_path / "two", document(VOTES, id="ef56")))
    again = inherited(model(tmp_path / "three", found.certificate()))
    assert again.spends == found.spends


def test_a_file_is_described_by_its_name_and_what_sha256sum_says(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"abc")
    one = PublicInput("model.inception", file, [file])
    described = one.describe(one.sha256())
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert described == {"setting": "model.inception", "name": "weights.pt", "sha256": {"weights.pt": sha256}}
