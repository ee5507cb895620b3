"""The embedded dataset: fixed, disjoint splits of the handwritten digits, and printed ones that are always the same."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data.dataset import ClassCounts, subset
from data.datasets import printed as rendering
from data.datasets.digits import NUM_PRIVATE, NUM_TEST, Digits, handwritten
from data.datasets.printed import printed


def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize(("split", "size"), [("private", NUM_PRIVATE), ("test", NUM_TEST)])
def test_a_split_is_uint8_images_with_int64_labels(split, size):
    images, labels = handwritten(split)
    assert (images.dtype, images.shape) == (np.uint8, (size, 8, 8, 1))
    assert (labels.dtype, labels.shape) == (np.int64, (size,))
    assert (images.min(), images.max()) == (0, 255)
    assert set(labels) == set(range(10))


def test_private_and_test_are_a_partition_of_all_handwritten_digits():
    digits = load_digits()
    everything = rows(np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target)
    splits = [handwritten(split) for split in ("private", "test")]
    assert rows(*(np.concatenate(parts) for parts in zip(*splits, strict=True))) == everything


def test_the_splits_never_change():
    for split, digest in (("private", "f215b957fc73e49b"), ("test", "471ad20a8d593964")):
        images, labels = handwritten(split)
        assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("size", [10, 203])
def test_printed_digits_have_balanced_classes(size):
    images, labels = printed(size)
    assert (images.dtype, images.shape) == (np.uint8, (size, 8, 8, 1))
    assert (labels.dtype, labels.shape) == (np.int64, (size,))
    counts = np.bincount(labels, minlength=10)
    assert counts.max() - counts.min() <= 1


def test_printed_digits_are_deterministic_and_differ_by_seed():
    (first, labels), (again, same), (other, _) = printed(50), printed(50), printed(50, seed=1)
    assert np.array_equal(first, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(first, other)


def test_some_printed_digits_are_rendered_once_and_nobody_changes_anothers(monkeypatch):
    rendered = Mock(side_effect=lambda count, size: printed(30, size=size))
    monkeypatch.setattr(rendering, "printed", rendered)
    rendering._some.cache_clear()
    try:
        first = rendering.some_printed()
        first.images[:] = 7
        again = rendering.some_printed()
        assert np.array_equal(again.images, printed(30)[0])
        assert rendered.call_count == 1
        assert rendering.some_printed(28).images.shape == (30, 28, 28, 1)
    finally:
        rendering._some.cache_clear()


def test_every_printed_digit_has_ink_over_its_whole_height():
    images, _ = printed(100)
    assert (images.max(axis=(1, 2, 3)) > 64).all()
    assert (images[:, [0, -1]].max(axis=(2, 3)) > 0).all()


def test_the_public_facts_are_those_of_the_images():
    dataset = Digits(class_counts=ClassCounts.uniform)
    dataset.check()
    private, test = dataset.private(), dataset.test()
    assert len(private) == dataset.num_private == dataset.facts()["n_private"]
    assert private.images.shape[1:] == test.images.shape[1:] == dataset.shape
    assert private.num_classes == test.num_classes == len(dataset.classes)


def test_public_facts_open_no_image(monkeypatch):
    monkeypatch.setattr("data.datasets.digits.handwritten", lambda split: pytest.fail("private images were opened"))
    monkeypatch.setattr("data.datasets.digits.printed", lambda *size: pytest.fail("public images were rendered"))
    dataset = Digits(class_counts=ClassCounts.uniform)
    dataset.check()
    assert dataset.facts()["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("stratified", [False, True])
def test_a_fraction_is_a_fixed_part_of_public_size(stratified):
    whole = Digits(class_counts=ClassCounts.uniform).private()
    sets = []
    for fraction in (0.01, 0.1, 0.5, 1.0):
        dataset = Digits(class_counts=ClassCounts.uniform, fraction=fraction, stratified=stratified)
        part = dataset.private()
        assert len(part) == dataset.num_private == round(fraction * 1437)
        assert np.array_equal(part.images, dataset.private().images)
        sets.append({image.tobytes() for image in part.images})
        if stratified:
            counts, expected = (np.bincount(samples.labels, minlength=10) for samples in (part, whole))
            assert abs(counts - expected * len(part) / 1437).max() <= 1
    assert all(small <= large for small, large in pairwise(sets))
    assert len(Digits(class_counts=ClassCounts.uniform, fraction=1e-9).private()) == 1
    assert len(Digits(class_counts=ClassCounts.uniform, fraction=0.01).test()) == 360


def test_the_certificate_says_that_it_is_about_a_fraction():
    dataset = Digits(class_counts=ClassCounts.uniform, fraction=0.1, stratified=True, keep_classes=["3", "5"])
    sentence = "29 of the 291 training images of digits, classes 3, 5: fraction 0.1, fixed rows of official files, by class"
    assert dataset.guarantee() == {"private_images": 29, "guarantee_is_about": sentence}


def test_a_fraction_is_not_the_first_rows():
    labels = np.arange(1000) // 100
    rows = subset(labels, 100, stratified=False)
    assert (np.diff(rows) > 0).all()
    counts = np.bincount(labels[rows], minlength=10)
    assert counts.max() < 25
    assert counts.min() != counts.max()
    assert np.bincount(labels[subset(labels, 100, stratified=True)]).tolist() == [10] * 10
