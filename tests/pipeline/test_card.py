"""README.md and croissant.json of a release: what tools of others read in them, and nothing but what may be shared."""

from __future__ import annotations

import copy
import doctest
import json
import logging
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest
import yaml

from data.samples import SampleSet
from data.shards import save_release
from disk import sha256_of
from pipeline import card as module
from pipeline.card import card, class_names
from pipeline.croissant import croissant
from privacy.mechanisms import Gaussian, Spend
from privacy.risk import in_words, risk
from tests.command import PUBLIC_ONLY, call, released

SPENDS = [Spend("moments", Gaussian(2.0))]
DOCUMENT: dict[str, Any] = {
    "private": True,
    "epsilon": 2.3,
    "delta": 1e-5,
    "unit": "user",
    "mechanisms": [spend.to_dict() for spend in SPENDS],
    "risk": risk(SPENDS, 1e-5),
    "public_by_assumption": ["number of users: 40", "class names: ill, well: or not\n# so"],
    "method": "dp_moments",
    "dataset": "mine & yours",
    "public_model": None,
    "guarantee_is_about": "all images of 40 users among the training images of mine, classes ill, well: or not\n# so",
    "public_inputs": [],
    "num_samples": 6,
    "classes": ["ill", "well: or not\n# so"],
}
SAMPLES = SampleSet(np.zeros((6, 4, 5, 3), np.uint8), np.arange(6) % 2, num_classes=2)


def parts(text: str) -> tuple[dict, str]:
    """Header and body."""
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_header_is_what_hugging_face_reads():
    from datasets import ClassLabel, Features, Image
    from huggingface_hub import DatasetCard

    text = card(DOCUMENT, SAMPLES, "Means with noise.")
    header, _ = parts(text)
    assert DatasetCard(text).data.to_dict() == header
    assert header["license"] == "other"
    assert header["size_categories"] == ["n<1K"]
    read = Features._from_yaml_list(copy.deepcopy(header["dataset_info"]["features"]))
    assert read == {"image": Image(), "label": ClassLabel(names=DOCUMENT["classes"])}


def test_the_words_hold_unit_budget_risk_and_assumptions():
    _, body = parts(card(DOCUMENT, SAMPLES, "Means with noise."))
    for told in (
        "ε = 2.3 and δ = 1e-05",
        "one person with all their images",
        "e^ε is 9.98",
        "Means with noise.",
        "grid.png",
    ):
        assert told in body
    assert in_words(DOCUMENT["risk"], module.Unit.user) in body
    assert "- number of users: 40\n" in body
    assert "\n# so" not in body  # a class name is no heading
    assert "Caution" not in body
    assert "**Caution:** delta is large." in card({**DOCUMENT, "caution": "delta is large"}, SAMPLES, "")


def test_sizes_have_their_names():
    assert doctest.testmod(module).failed == 0
    assert [module.size_category(n) for n in (1, 1000, 99_999, 100_000)] == ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M"]


def test_samples_without_classes_have_one():
    assert class_names(SampleSet(SAMPLES.images, np.zeros(6, np.int64), 1), ["a", "b"]) == ["image"]
    assert class_names(SAMPLES, ["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("shard", [6, 4], ids=["one file", "shards"])
def test_mlcroissant_finds_no_fault(tmp_path, shard, caplog):
    save_release(SAMPLES, tmp_path, shard)
    place = tmp_path / "croissant.json"
    place.write_text(json.dumps(croissant(DOCUMENT, SAMPLES, tmp_path)))
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=str(place))  # raises where the format is broken
    lacking = {line.split('"')[1].split("/")[-1] for line in caplog.text.splitlines() if "recommended" in line}
    assert lacking <= {"citeAs", "datePublished", "license"}  # which are the holder's to say
    assert dataset.metadata.conforms_to == ["http://mlcommons.org/croissant/1.1"]
    names = [record["classes/name"] for record in dataset.records("classes")]
    assert [name.decode() if isinstance(name, bytes) else name for name in names] == DOCUMENT["classes"]
    for file in dataset.metadata.distribution:
        assert file.sha256 == sha256_of(tmp_path / file.content_url)


def test_a_release_has_both_and_they_say_where_nothing_was_spent(here):
    folder = released(call(*PUBLIC_ONLY), here)
    header, body = parts((folder / "README.md").read_text())
    assert header["size_categories"] == ["n<1K"]
    assert "\n10 synthetic grey images of 8 × 8 pixels in 10 classes, made without any private image" in body
    assert "ε = 0" in body
    assert mlcroissant.Dataset(jsonld=str(folder / "croissant.json")).metadata.name == "synthetic-digits-public_only"
    for name in ("README.md", "croissant.json"):
        assert str(here) not in (folder / name).read_text()
    assert Path(folder / "grid.png").exists()
